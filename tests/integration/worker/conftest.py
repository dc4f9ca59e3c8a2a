"""A worker that runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.worker.process import WorkerProcess


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    it = WorkerProcess(tmp_path)
    it.start()
    try:
        yield it
    finally:
        it.close()
