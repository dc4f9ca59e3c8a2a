"""oRPC's own client from npm, in the version of clients/typescript, run by the node that comes with the tests."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from bootstrap import typescript

HERE = Path(__file__).parent
SECONDS = 60


class Node:
    """Runs a script of this folder beside npm's packages, and reads the lines of JSON that it prints."""

    def __init__(self) -> None:
        self._folder = typescript.installed().parent

    async def __call__(self, script: str, environ: Mapping[str, str], stdin: Any = None) -> list[dict[str, Any]]:
        shutil.copy(HERE / script, self._folder)
        with anyio.fail_after(SECONDS):
            done = await anyio.run_process(
                [str(typescript.node()), "--disable-warning=ExperimentalWarning", str(self._folder / script)],
                env={"PATH": os.environ["PATH"], "PERRY_CLIENT": str(typescript.CLIENT), **environ},
                input=json.dumps(stdin).encode(),
                check=False,
            )
        assert done.returncode == 0, done.stderr.decode()
        return [json.loads(line) for line in done.stdout.decode().splitlines()]


@pytest.fixture(scope="session")
def node() -> Node:
    return Node()
