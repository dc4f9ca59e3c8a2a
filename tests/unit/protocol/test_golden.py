"""What crosses the wire, as it once did: ``protocol/golden`` is read by Python and by TypeScript, and stays as it is.

A file is the answer of an agent of some version. Older ones are never changed: they are what is out there.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bootstrap import typescript
from protocol.agent import AgentInfo
from protocol.errors import WireError
from protocol.events import Event, Snapshot
from protocol.exec import ClientFrame, ServerFrame
from protocol.health import Health
from protocol.workspaces import UnsavedWork, Workspace

GOLDEN = Path(__file__).parents[3] / "protocol" / "golden"

KINDS: dict[str, tuple[Any, str]] = {
    "agent-info": (AgentInfo, 'Schemas["AgentInfo"]'),
    "client-frames": (list[ClientFrame], "(" + " | ".join(
        f'Schemas["{name}"]' for name in ("Run", "EndInput", "SendSignal", "Resize", "Taken")) + ")[]"),
    "error": (WireError, 'Schemas["WireError"]'),
    "events": (list[Event], "Event[]"),
    "health": (Health, 'Schemas["Health"]'),
    "server-frames": (list[ServerFrame], "(" + " | ".join(
        f'Schemas["{name}"]' for name in ("Started", "Taken", "Exited", "Failed")) + ")[]"),
    "unsaved-work": (UnsavedWork, 'Schemas["UnsavedWork"]'),
    "workspace": (Workspace, "Workspace"),
}  # fmt: skip
"""What is in each file, for both languages."""


def test_each_file_is_read() -> None:
    assert {file.stem for file in GOLDEN.glob("*.json")} == {*KINDS, "newer"}


@pytest.mark.parametrize("name", KINDS)
def test_python_reads_it_and_writes_the_same(name: str) -> None:
    content = (GOLDEN / f"{name}.json").read_bytes()
    value = msgspec.json.decode(content, type=KINDS[name][0])
    assert msgspec.json.decode(msgspec.json.encode(value)) == msgspec.json.decode(content)


def test_what_a_newer_agent_says_is_read_as_far_as_it_is_known() -> None:
    """Fields, statuses and steps that nobody knows yet."""
    snapshot = msgspec.json.decode((GOLDEN / "newer.json").read_bytes(), type=Snapshot)
    (workspace,) = snapshot.workspaces
    assert workspace.name == "alpha" and workspace.status == "hibernating"
    assert workspace.tailnet.status == "roaming"
    assert workspace.startup is not None and workspace.startup.steps[0].status == "postponed"


def test_typescript_takes_it_for_what_it_is(tmp_path: Path) -> None:
    shutil.copytree(typescript.CLIENT, tmp_path / "client", ignore=shutil.ignore_patterns("tests", "node_modules"))
    (tmp_path / "client" / "node_modules").symlink_to(typescript.installed())
    lines = ['import type { Schemas, Workspace } from "./client.ts";', 'import type { Event } from "./socket.ts";']
    for name, (_, kind) in KINDS.items():
        value = json.dumps(json.loads((GOLDEN / f"{name}.json").read_text()))
        lines.append(f"export const {name.replace('-', '_')}: {kind} = {value};")
    (tmp_path / "client" / "golden.ts").write_text("\n".join(lines))
    tsc = [str(typescript.node()), str(typescript.installed() / "typescript/bin/tsc"), "--noEmit"]
    done = subprocess.run(tsc, cwd=tmp_path / "client", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
