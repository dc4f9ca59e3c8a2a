"""``perry tailnet status``."""

from protocol.tailnet import TailnetNode, TailnetStatus
from tests.unit.cli.agent import FakeAgent
from tests.unit.cli.conftest import Perry

CREDENTIAL = "OAuth client k1CNTRL (in /c/key)"


def test_what_the_coordinator_is_asked_with_and_who_gets_in(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tailnet.status"] = TailnetStatus(
        provider="tailscale",
        ready=True,
        owners=[],
        nodes=[TailnetNode(name="alpha", ips=["100.64.0.1"], online=True, tags=["tag:x"], workspace="alpha")],
        credential=CREDENTIAL,
        credential_expires="2030-01-01T00:00:00Z",
        owners_warning="auth.owners names nobody; mend it.",
    )
    shown = [line.split(maxsplit=1) for line in perry_("tailnet", "status").stdout.splitlines()]
    for line in (["Credential", CREDENTIAL], ["Expires", "2030-01-01T00:00:00Z"], ["Owners", "nobody"]):
        assert line in shown
    assert ["auth.owners", "names nobody; mend it."] in shown
    assert ["alpha", "100.64.0.1  yes     workspace alpha"] in shown


def test_where_there_is_none_there_are_no_owners_either(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tailnet.status"] = TailnetStatus(provider="none", ready=False, owners=[], nodes=[])
    assert "Owners" not in perry_("tailnet", "status").stdout
