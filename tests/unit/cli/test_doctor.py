"""``perry doctor``: each line, well and not well."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol.agent import AgentInfo
from protocol.auth import IdentityKind, WhoAmI
from protocol.config import Config, ConfigValue
from protocol.errors import ErrorCode
from protocol.health import Check, Readiness
from protocol.tailnet import GatewayStatus, TailnetNode, TailnetStatus
from protocol.version import VERSION
from protocol.workspaces import TailnetState, WorkspaceTailnet
from tests.unit.cli.agent import Answer, FakeAgent, refuses, workspace
from tests.unit.cli.conftest import Perry

NODE = TailnetNode(name="laptop", ips=["100.64.0.9"], online=True, tags=[])


def settings(**values: Any) -> Config:
    items = [ConfigValue(key=key.replace("__", "."), value=value, source="file") for key, value in values.items()]
    return Config(folder="/x", items=items)


@pytest.fixture
def well(agent: FakeAgent, perry_: Perry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeAgent:
    """An agent where nothing is wrong."""
    (perry_.folder / "token").chmod(0o600)
    agent.answers |= {
        "auth.whoami": WhoAmI(kind=IdentityKind.TOKEN, may=["manage"]),
        "config.get": settings(host="127.0.0.1", ssh__bind="127.0.0.1"),
        "tailnet.status": TailnetStatus(provider="embedded", ready=True, owners=["o"], nodes=[NODE]),
    }
    monkeypatch.setattr("cli.commands.doctor._missing_images", lambda images: [])
    monkeypatch.setattr("cli.commands.doctor._own_addresses", lambda: {"100.64.0.9"})
    return agent


def lines(perry_: Perry) -> dict[str, tuple[str, str]]:
    found = msgspec.json.decode(perry_("doctor", "--json").stdout)
    return {each["name"]: (each["verdict"], f"{each['text']} {each.get('advice') or ''}") for each in found}


def test_all_is_well(perry_: Perry, well: FakeAgent) -> None:
    result = perry_("doctor")
    assert result.exit_code == 0, result.output
    assert "fail" not in result.stdout
    found = lines(perry_)
    names = ["configuration", "agent", "token", "versions", "docker", "images", "tun", "tailnet", "this device"]
    assert set(names) <= set(found)
    assert all(found[name][0] == "ok" for name in names if name != "tun")


@pytest.mark.parametrize(
    ("answers", "name", "verdict", "says"),
    [
        ({"auth.whoami": WhoAmI(kind=IdentityKind.ANONYMOUS, may=[])}, "token", "fail", "PERRY_TOKEN"),
        (
            {"agent.info": AgentInfo(version="9", hostname="b", uptime=1, workspaces_count=0, docker_version="26")},
            "versions", "warn", "same version",
        ),
        (
            {"agent.info": AgentInfo(version=VERSION, hostname="b", uptime=1, workspaces_count=0)},
            "docker", "fail", "systemctl start docker",
        ),
        (
            {
                "tailnet.status": TailnetStatus(
                    provider="headscale", ready=True, owners=["x"], nodes=[NODE], owners_warning="x is nobody; mend it."
                )
            },
            "owners", "fail", "x is nobody",
        ),
        (
            {"tailnet.status": TailnetStatus(provider="e", ready=False, owners=[], nodes=[], error="Away; wait.")},
            "tailnet", "fail", "Away; wait.",
        ),
        ({"tailnet.status": refuses(ErrorCode.BAD_GATEWAY, "It broke.")}, "tailnet", "fail", "It broke."),
        (
            {"tailnet.status": TailnetStatus(provider="none", ready=True, owners=[], nodes=[])},
            "tailnet", "warn", "tailnet.provider",
        ),
        ({"config.get": settings(host="0.0.0.0")}, "open: agent", "warn", "unencrypted"),
        ({"config.get": settings(ssh__bind="0.0.0.0")}, "open: ssh", "warn", "keys only"),
    ],
)  # fmt: skip
def test_what_is_not_well(
    perry_: Perry, well: FakeAgent, answers: dict[str, Any], name: str, verdict: str, says: str
) -> None:
    well.answers |= answers
    found = lines(perry_)[name]
    assert found[0] == verdict
    assert says in found[1]


def test_what_the_agent_itself_finds_wanting(perry_: Perry, well: FakeAgent) -> None:
    wanting = Check(name="tun", ok=False, detail="There is none; load it.")
    well.ready = Answer(503, msgspec.json.encode(Readiness(ready=False, checks=[wanting], error="x")))
    assert lines(perry_)["ready: tun"] == ("fail", "There is none; load it. ")


def test_what_a_person_should_mend(perry_: Perry, well: FakeAgent) -> None:
    wanting = Check(name="wakes", ok=True, detail="The gateway is away; start it.", degraded=True)
    well.ready = Answer(200, msgspec.json.encode(Readiness(ready=True, checks=[wanting])))
    found = lines(perry_)
    assert found["ready: wakes"] == ("warn", "The gateway is away; start it. ")
    assert found["ready"][0] == "ok"


def test_workspaces_that_are_not_well(perry_: Perry, well: FakeAgent) -> None:
    well.workspaces["a"] = workspace("a", error="It broke.")
    assert "It broke." in lines(perry_)["workspace"][1]
    assert "boundary" in lines(perry_)["open: docker"][1]
    off = WorkspaceTailnet(status=TailnetState.OFFLINE, hostname="a", ips=[])
    well.workspaces["a"] = workspace("a", tailnet=off)
    assert "`perry restart a`" in lines(perry_)["workspace"][1]


def test_missing_images(perry_: Perry, well: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.commands.doctor._missing_images", lambda images: images[:1])
    found = lines(perry_)["images"]
    assert found[0] == "fail"
    assert "`perry agent build`" in found[1]
    monkeypatch.setattr("cli.commands.doctor._missing_images", lambda images: None)
    assert lines(perry_)["images"][0] == "warn"


def test_without_docker_all_else_is_looked_at_too(perry_: Perry, well: FakeAgent) -> None:
    well.answers["workspaces.list"] = refuses(ErrorCode.PRECONDITION_FAILED, "Docker does not answer; start it.")
    found = lines(perry_)
    assert [found[name][0] for name in ("workspaces", "tailnet", "open: agent")] == ["fail", "ok", "ok"]


def test_a_token_that_others_can_read(perry_: Perry, well: FakeAgent) -> None:
    (perry_.folder / "token").chmod(0o644)
    assert lines(perry_)["token"][0] == "fail"


def test_settings_with_secrets_that_others_can_read(perry_: Perry, well: FakeAgent) -> None:
    file = perry_.folder / "config.json"
    file.write_text("{}")
    file.chmod(0o644)
    assert "settings" not in lines(perry_)
    well.answers["config.get"] = settings(github__token="***", ssh__bind="127.0.0.1")
    verdict, text = lines(perry_)["settings"]
    assert verdict == "fail" and "github.token" in text and "chmod 600" in text
    file.chmod(0o600)
    assert "settings" not in lines(perry_)


@pytest.mark.parametrize(("error", "verdict"), [(None, "ok"), ("Its key was refused.", "warn")])
def test_the_gateway(perry_: Perry, well: FakeAgent, error: str | None, verdict: str) -> None:
    assert "gateway" not in lines(perry_)
    gateway = GatewayStatus(name="perry-1", online=error is None, ips=[], error=error)
    well.answers["tailnet.status"] = TailnetStatus(
        provider="e", ready=True, owners=["o"], nodes=[NODE], gateway=gateway
    )
    found = lines(perry_)["gateway"]
    assert found[0] == verdict and "http://perry-1" in found[1] and (error or "") in found[1]
    shown = perry_("tailnet", "status").stdout
    assert "Agent" in shown and "http://perry-1" in shown and (error or "") in shown


def test_a_device_that_is_not_on_the_tailnet(perry_: Perry, well: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.commands.doctor._own_addresses", set)
    assert "`perry tailnet join`" in lines(perry_)["this device"][1]


def test_no_agent(perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRY_URL", "http://127.0.0.1:1")
    result = perry_("doctor")
    assert result.exit_code == 1
    assert "checks failed" in result.stderr
    assert lines(perry_)["agent"][0] == "fail"


def test_a_broken_configuration_is_one_line(perry_: Perry) -> None:
    (perry_.folder / "client.json").write_text("{")
    assert list(lines(perry_)) == ["configuration"]
