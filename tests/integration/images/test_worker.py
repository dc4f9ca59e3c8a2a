"""The image perry/worker: a folder that needs nothing of what it is put into."""

import json
import subprocess

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

IMAGE = "perry/worker:latest"
CURRENT = "/opt/perry/worker/current"
SIZE_LIMIT = 40_000_000


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run(*words: str) -> str:
    """What the launcher does. The image is that folder and nothing else: no libc, no loader, and no shell either."""
    program = f"{CURRENT}/bin/perry-worker"
    python = f"{CURRENT}/bin/python3"
    how = ("--inhibit-cache", "--library-path", f"{CURRENT}/lib", "--argv0", python, python, "-I", "-S")
    return docker("run", "--rm", "--network", "none", IMAGE, program, *how, *words)


def test_it_runs_where_there_is_nothing_else() -> None:
    version = docker("inspect", "-f", '{{index .Config.Labels "perry.worker"}}', IMAGE)
    assert len(version) == 16
    assert run("-m", "worker", "--version") == f"perry worker {version}"


def test_all_that_it_needs_is_its_own() -> None:
    needed = "sqlite3, ssl, hashlib, zoneinfo, json, ctypes, lzma, bz2, asyncio, msgspec, websockets, inotify_simple"
    code = (
        f"import sys, {needed}, worker.app; from pathlib import Path; import json;"
        "mapped = {line.split()[-1] for line in Path('/proc/self/maps').read_text().splitlines() if '/' in line};"
        "print(json.dumps(sorted(mapped)))"
    )
    mapped = json.loads(run("-c", code))
    assert mapped and all(path.startswith("/opt/perry/worker/") for path in mapped), mapped


def test_it_is_small_and_nothing_in_it_is_compiled_at_a_start() -> None:
    assert int(docker("inspect", "-f", "{{.Size}}", IMAGE)) < SIZE_LIMIT
    code = (
        "from pathlib import Path; import worker;"
        "library = Path(worker.__file__).parents[1];"
        "print([str(p) for p in library.rglob('*.py') if not list((p.parent / '__pycache__').glob(p.stem + '.*.pyc'))])"
    )
    assert run("-c", code) == "[]"
