"""oRPC's own client, as npm has it, against a running server: the wire is theirs, so only they can say it is right."""

import json
from pathlib import Path
from typing import Any

import pytest

from protocol.workspaces import ExecCommand, ExecResult, StartWorkspace
from tests.contract.orpc.conftest import Node
from tests.fakes.surface import TOKEN, Surface
from tests.fakes.workspaces import workspace

pytestmark = pytest.mark.anyio


async def drive(surface: Surface, node: Node) -> dict[str, dict[str, Any]]:
    """What each call of the script came to."""
    async with surface.served() as port:
        lines = await node("drive.mjs", {"PERRY_URL": f"http://127.0.0.1:{port}", "PERRY_TOKEN": TOKEN})
    return {line["name"]: line for line in lines}


async def test_the_client_of_orpc_understands_us(tmp_path: Path, anyio_backend: str, node: Node) -> None:
    surface = Surface(tmp_path)
    real_exec = surface.workspaces.exec

    async def crash(wanted: ExecCommand) -> ExecResult:
        if wanted.name == "crash":
            raise RuntimeError("inner words")
        return await real_exec(wanted)

    surface.workspaces.exec = crash  # type: ignore[method-assign]
    came = await drive(surface, node)

    assert came["listNone"]["output"] == []
    assert came["start"]["output"]["limits"]["memory"] == 1 << 33
    assert surface.workspaces.asked[1] == StartWorkspace(name="alpha", memory=1 << 33)
    assert [found["name"] for found in came["list"]["output"]] == ["alpha"]
    assert came["get"]["output"]["tailnet"]["ips"] == workspace("alpha").tailnet.ips
    assert came["deleted"]["output"] is None
    assert came["whoami"]["output"]["kind"] == "token"

    def failed(name: str, code: str, status: int) -> dict[str, Any]:
        outcome = came[name]
        assert outcome["isORPCError"] is True
        assert outcome["isDefined"] is False
        error: dict[str, Any] = outcome["error"]
        assert (error["code"], error["status"]) == (code, status), name
        return error

    assert "exists already" in failed("createAgain", "CONFLICT", 409)["message"]
    assert failed("getMissing", "NOT_FOUND", 404)["message"].startswith("There is no workspace named 'nobody'")
    assert "lower-case letters" in failed("wrongName", "BAD_REQUEST", 400)["message"]
    failed("noInput", "BAD_REQUEST", 400)
    unsaved = failed("deleteUnsaved", "CONFLICT", 409)
    assert unsaved["data"] == {"uncommitted": ["?? new.py"], "unpushed": []}
    failed("unknownProcedure", "NOT_FOUND", 404)
    failed("withDate", "NOT_FOUND", 404)  # alpha is deleted by then: the date itself is read
    failed("file", "BAD_REQUEST", 400)
    assert "inner" not in json.dumps(failed("crash", "INTERNAL_SERVER_ERROR", 500))
    assert "perry agent token" in failed("stranger", "UNAUTHORIZED", 401)["message"]
