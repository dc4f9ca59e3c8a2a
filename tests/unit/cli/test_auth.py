"""``perry auth``."""

import msgspec

from protocol.auth import IdentityKind, WhoAmI
from tests.unit.cli.agent import FakeAgent
from tests.unit.cli.conftest import Perry


def test_whoami_shows_all_that_is_known(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["auth.whoami"] = WhoAmI(
        kind=IdentityKind.WORKSPACE,
        may=["health", "whoami"],
        node="alpha.perry.internal",
        workspace="alpha",
        tags=["tag:perry-workspace"],
        capabilities=["example.com/cap/x"],
    )
    result = perry_("auth", "whoami")
    shown = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert {key.strip(): value.strip() for key, value in shown.items()} == {
        "Agent": f"{agent.url}, named by PERRY_URL",
        "You are": "workspace",
        "Device": "alpha.perry.internal",
        "Workspace": "alpha",
        "Tags": "tag:perry-workspace",
        "Capabilities": "example.com/cap/x",
        "You may": "health, whoami",
    }
    assert msgspec.json.decode(perry_("auth", "whoami", "--json").stdout)["workspace"] == "alpha"
