"""Secrets are where they are needed and nowhere else: canaries in a running system, and a look at all the rest."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.system import System, docker

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

CANARY = "canary7f3a"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("canaries")
    home = folder / "home"
    (home / ".claude").mkdir(parents=True)
    (home / ".claude/.credentials.json").write_text(json.dumps({"claudeAiOauth": {"accessToken": f"{CANARY}-claude"}}))
    (home / "token").write_text(f"{CANARY}-file\n")
    # It fails, so that its words are in the answers and the log; and it lingers, so that its arguments can be seen.
    (home / "post.sh").write_text(
        '#!/bin/sh\necho "said $PLAIN and $NAMED" >&2\n(sleep 120 >/dev/null 2>&1 &)\nexit 3\n'
    )
    system = System(folder / "agent", tailnet="none")
    system.of_person(home)
    system.folder.mkdir(parents=True)
    config = {
        "credentials": {
            "env": {"PLAIN": f"{CANARY}-plain", "NAMED": {"secret": "named"}, "FILED": {"file": "~/token"}},
            "files": {"~/brought": "~/token"},
        },
        "github": {"token": f"{CANARY}-github"},
        "mcpServers": [{"name": "m", "command": "m", "env": {"KEY": f"{CANARY}-mcp"}}],
        "scripts": {"post_start": ["~/post.sh"]},
    }
    (system.folder / "config.json").write_text(json.dumps(config))
    try:
        system.start()
        system.perry("secrets", "set", "named", input=f"{CANARY}-named\n")
        system.raw("workspaces.start", {"name": "alpha", "docker": False})
        yield system
    finally:
        system.remove()


def test_they_are_where_they_are_needed(planted: System) -> None:
    for command in (
        'printenv PLAIN NAMED FILED | grep -c canary',
        "grep -l canary ~/brought ~/.claude/.credentials.json ~/.claude.json ~/.perry/credentials/github | wc -l",
    ):  # fmt: skip
        assert planted.inside("alpha", "sh", "-c", command).strip() in ("3", "4")


def test_a_failed_script_says_its_words_without_them(planted: System) -> None:
    steps = {step.id: step for step in (planted.workspace("alpha").startup or pytest.fail("no start")).steps}
    assert steps["scripts"].detail is not None and "exit code 3: said *** and ***" in steps["scripts"].detail


def test_they_are_nowhere_else(planted: System, tmp_path: Path) -> None:
    container = planted.container("alpha")
    image = docker("inspect", "--format", "{{.Image}}", container)
    places = {
        "docker inspect": docker("inspect", *docker("ps", "-aq", "--filter",
                                                    f"label=perry.instance={planted.instance}").split()),
        "volumes": docker("volume", "ls", "--format", "{{.Name}} {{.Labels}}"),
        "networks": docker("network", "ls", "--format", "{{.Name}} {{.Labels}}"),
        "the image": docker("history", "--no-trunc", image) + docker("inspect", image),
        "docker logs": _logs(container) + _logs(f"{container}.tailnet"),
        "arguments on the machine": _arguments(),
        "arguments in the workspace": docker("exec", container, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"),
        "the environment of PID 1": docker("exec", container, "sh", "-c", "tr '\\0' '\\n' </proc/1/environ"),
        "the agent's log": planted.log(),
        "state.db": (planted.folder / "state.db").read_bytes().decode(errors="replace")
        + "".join(file.read_bytes().decode(errors="replace") for file in planted.folder.glob("state.db-*")),
        "perry config": planted.perry("config").stdout + planted.perry("config", "--json").stdout,
        "perry secrets": planted.perry("secrets", "list").stdout,
        "perry logs": planted.perry("logs", "alpha").stdout,
        **{
            call: planted.raw(call, wanted).text
            for call, wanted in {
                "workspaces.list": {},
                "workspaces.get": {"name": "alpha"},
                "workspaces.sync": {"name": "alpha"},
                "credentials.list": {},
                "secrets.list": {},
                "config.get": {},
            }.items()
        },
    }  # fmt: skip
    assert all(places.values()), [place for place, text in places.items() if not text]
    assert [place for place, text in places.items() if CANARY in text] == []


def _arguments() -> str:
    found = ""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += file.read_bytes().replace(b"\0", b" ").decode(errors="replace") + "\n"
        except OSError:
            continue  # It has ended meanwhile.
    return found


def _logs(container: str) -> str:
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
    return done.stdout + done.stderr + " "
