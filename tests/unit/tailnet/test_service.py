"""``perry tailnet``, on a fake coordinator."""

import shlex

import pytest

from controlplane.adapters.tailnet import NoTailnet
from controlplane.errors import NotReady
from controlplane.tailnet.service import TailnetService, strangers
from tests.fakes.tailnet import FakeTailnet

pytestmark = pytest.mark.anyio


async def test_status_names_workspaces_and_devices() -> None:
    tailnet = FakeTailnet()
    alpha = tailnet.joined("alpha", (await tailnet.mint_workspace_key()).secret)
    tailnet.joined("laptop", (await tailnet.mint_device_key()).secret)
    assert alpha is not None
    status = await TailnetService(tailnet, (), lambda: {alpha.id: "alpha"}).status()
    assert status.ready and status.error is None and status.owners == ["owner"]
    assert [(node.name, node.workspace, node.user) for node in status.nodes] == [
        ("alpha", "alpha", None),
        ("laptop", None, "owner"),
    ]
    assert status.owners_warning is None and status.credential is None


async def test_owners_who_are_nobody_there_are_said() -> None:
    tailnet = FakeTailnet()
    status = await TailnetService(tailnet, ("owner", "me@example.com"), dict).status()
    assert status.owners == ["owner", "me@example.com"]
    assert status.ready and "names me@example.com, and nobody on the tailnet" in str(status.owners_warning)
    assert "nobody gets in" not in str(status.owners_warning)
    status = await TailnetService(tailnet, ("me@example.com",), dict).status()
    assert "so nobody gets in" in str(status.owners_warning) and "(there are owner)" in str(status.owners_warning)
    tailnet.own_owners = ()
    status = await TailnetService(tailnet, (), dict).status()
    assert "auth.owners names nobody" in str(status.owners_warning)
    tailnet.people = None
    assert (await TailnetService(tailnet, ("me@example.com",), dict).status()).owners_warning is None
    assert await strangers(NoTailnet(), ()) == []


async def test_workspaces_that_run_on_another_tailnet_are_named() -> None:
    status = await TailnetService(FakeTailnet(), (), dict, elsewhere=lambda: ["alpha", "beta"]).status()
    assert "alpha, beta are still on the tailnet that was configured before" in str(status.warning)
    assert "`perry restart alpha`" in str(status.warning)


async def test_status_answers_while_the_coordinator_is_away() -> None:
    tailnet = FakeTailnet()
    tailnet.away = True
    status = await TailnetService(tailnet, (), dict).status()
    assert not status.ready and "does not answer" in str(status.error) and status.nodes == []


async def test_the_key_is_no_argument_of_the_command() -> None:
    joining = await TailnetService(FakeTailnet(), (), dict).join()
    given, _, command = joining.command.partition(" | ")
    assert given == f"printf %s {joining.key}" and joining.key not in command
    words = shlex.split(command)
    assert words[:3] == ["sudo", "tailscale", "login"] and words[-1] == "file:/dev/stdin"
    assert words[words.index("--login-server") + 1] == joining.control_url
    assert joining.environment == {"TS_DEBUG_USE_DERP_HTTP": "1"}
    assert joining.expires.endswith("Z")


async def test_with_no_tailnet_there_is_nothing_to_join() -> None:
    service = TailnetService(NoTailnet(), (), dict)
    status = await service.status()
    assert not status.ready and status.provider == "none" and status.error is None
    with pytest.raises(NotReady, match="set it to embedded"):
        await service.join()
