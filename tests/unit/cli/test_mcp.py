"""``perry mcp`` with the SDK's own client, in front of a whole control plane on fakes."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import msgspec
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from cli import mcp_server
from cli.mcp_tools import TOOLS
from controlplane.app import procedures
from protocol.errors import ErrorCode
from protocol.workspaces import UnsavedWork
from tests.fakes.agent_process import running
from tests.fakes.tasks import GOES_ON
from tests.unit.cli.agent import FakeAgent, refuses
from tests.unit.cli.conftest import Perry

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running(tmp_path_factory.mktemp("agent")) as found:
        yield found


def perry_mcp(environ: Mapping[str, str]) -> Client:
    """``perry mcp`` as an assistant starts it."""
    argv = ["-c", "from cli.main import main; main()", "mcp"]
    return Client(stdio_client(StdioServerParameters(command=sys.executable, args=argv, env=dict(environ))))


def text_of(result: types.CallToolResult) -> Any:
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    return json.loads(content.text)


async def done(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return text_of(result)


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    said: str = text_of(result)["error"]
    return said


async def test_an_assistants_day(environ: dict[str, str]) -> None:
    with anyio.fail_after(100):
        async with perry_mcp(environ) as client:
            assert client.server_info is not None
            assert client.server_info.name == "perry"
            offered = (await client.list_tools()).tools
            assert [tool.name for tool in offered] == [tool.name for tool in TOOLS]

            assert (await done(client, "workspaces_start", name="alpha"))["status"] == "running"
            assert [each["name"] for each in await done(client, "workspaces_list")] == ["alpha"]
            assert (await done(client, "workspaces_exec", name="alpha", command=["true"]))["exitCode"] == 0
            assert "items" in await done(client, "workspaces_logs", name="alpha", tail=5)

            job = await done(client, "cron_add", name="fb", at="20m", message="Look after it.", deleteAfterRun=True)
            assert (await done(client, "cron_list"))["items"] == [job]
            ran = await done(client, "cron_run", job="fb")
            assert ran["outcome"] == "ok"
            wake = ran["detail"].removeprefix("wake ")
            assert (await done(client, "wakes_show", id=wake))["text"].endswith("Look after it.")
            assert [each["id"] for each in (await done(client, "wakes_list"))["items"]] == [wake]
            assert (await done(client, "cron_remove", job="fb"))["name"] == "fb"

            task = await done(client, "tasks_dispatch", workspace="alpha", task="Sweep", agent="claude")
            waited = await done(client, "tasks_wait", ids=[task["id"]], timeout=60)
            assert (waited["done"], waited["items"][0]["state"]) == (True, "succeeded")
            left = await done(client, "tasks_result", id=task["id"])
            assert (left["lastMessage"], len(left["commits"])) == ("I have done it: Sweep", 1)
            assert "Sweep" in (await done(client, "tasks_logs", id=task["id"]))["text"]
            long = await done(client, "tasks_dispatch", workspace="alpha", task=GOES_ON, agent="command")
            assert long["id"] in [each["id"] for each in (await done(client, "tasks_list"))["items"]]
            with anyio.fail_after(60):
                while (await done(client, "tasks_get", id=long["id"]))["state"] != "running":  # noqa: ASYNC110 — `tasks.wait` is for ends
                    await anyio.sleep(0.05)
            assert (await done(client, "tasks_check", workspace="alpha"))["conclusion"] == "working"
            assert (await done(client, "tasks_cancel", id=long["id"]))["state"] == "cancelled"
            assert "items" in await done(client, "sessions_list", workspace="alpha")
            assert "items" in await done(client, "sessions_search", query="sweep")

            items = [{"item": "hall"}, {"item": "attic"}]
            sweeps = {"items": items, "name": "sweep-{}", "task": "Sweep the {}", "removeWhen": "done"}
            assert len((await done(client, "batches_plan", **sweeps))["items"]) == 2
            batch = (await done(client, "batches_start", **sweeps))["summary"]
            assert [each["id"] for each in (await done(client, "batches_list"))["items"]] == [batch["id"]]
            waited = await done(client, "batches_wait", id=batch["id"])
            while not waited["done"]:
                waited = await done(client, "batches_wait", id=batch["id"], mark=waited["mark"], timeout=60)
            swept = (await done(client, "batches_get", id=batch["id"]))["items"]
            assert [each["state"] for each in swept] == ["succeeded", "succeeded"], swept
            left = await done(client, "tasks_result", id=swept[1]["task"])
            assert left["lastMessage"] == "I have done it: Sweep the attic"

            nightly = {"workspace": "alpha", "task": "Sweep"}
            job = await done(client, "cron_add", cron="0 3 * * *", dispatch=nightly)
            assert (job["action"], job["workspace"]) == ("dispatch", "alpha")
            assert (await done(client, "cron_add", every="1h", check="alpha"))["name"] == "check-alpha"

            assert (await done(client, "workspaces_stop", name="alpha"))["status"] == "stopped"


async def test_clients_of_before_the_protocol_of_2026(clean_environment: Path) -> None:
    async with Client(mcp_server.server(), mode="legacy") as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == [tool.name for tool in TOOLS]
        assert "start one with `perry agent run`" in await refused(client, "workspaces_list")


async def test_what_is_refused_is_a_sentence_for_the_assistant(environ: dict[str, str]) -> None:
    with anyio.fail_after(100):
        async with perry_mcp(environ) as client:
            assert "no workspace named 'none'" in await refused(client, "workspaces_get", name="none")
            assert "10s is the least" in await refused(client, "cron_add", every="1s", message="x")
            assert "takes no 'force'" in await refused(client, "workspaces_delete", name="none", force=True)
            # Of a newer or older control plane, or misspelt: said, and not passed over.
            assert "'tial', which this agent" in await refused(client, "workspaces_logs", name="none", tial=5)
            assert "There is no tool 'rm'" in await refused(client, "rm")


async def test_nobody_there(clean_environment: Path) -> None:
    with anyio.fail_after(100):
        async with Client(mcp_server.server()) as client:
            assert "start one with `perry agent run`" in await refused(client, "workspaces_list")


async def test_what_would_be_lost_is_told_too(agent: FakeAgent) -> None:
    lost = UnsavedWork(uncommitted=["?? notes"], unpushed=[])
    agent.answers["workspaces.delete"] = refuses(ErrorCode.CONFLICT, "Work would be lost.", lost)
    async with Client(mcp_server.server()) as client:
        result = await client.call_tool("workspaces_delete", {"name": "alpha"})
    assert text_of(result) == {
        "error": "Work would be lost.",
        "data": {"uncommitted": ["?? notes"], "unpushed": []},
    }


def test_every_tool_is_a_procedure_and_takes_what_that_takes() -> None:
    known = {f"{each.group}.{each.name}": each.input for each in procedures()}
    for tool in TOOLS:
        assert known[tool.procedure] is tool.takes, tool.procedure
        schema = tool.schema()
        assert schema["type"] == "object"
        assert set(tool.without).isdisjoint(schema["properties"])
        assert not set(tool.without) & set(schema.get("required", ()))
        if tool.takes is not None:
            assert set(tool.without) <= {field.encode_name for field in msgspec.structs.fields(tool.takes)}


def test_long_texts_keep_their_beginning_and_their_end() -> None:
    long = "a" * 30_000 + "b" * 30_000
    (short,) = mcp_server.shortened({"items": [{"stdout": long}]})["items"]
    assert short["stdout"].startswith("a" * 10_000)
    assert short["stdout"].endswith("b" * 10_000)
    assert "(40000 characters left out)" in short["stdout"]
    assert mcp_server.shortened("x" * 20_000) == "x" * 20_000


def test_without_the_sdk_it_says_how_to_get_it(perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cli.mcp_server", None)
    result = perry_("mcp")
    assert (result.exit_code, "install it as perry[mcp]" in result.stderr) == (1, True)
