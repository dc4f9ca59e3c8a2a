"""What every test may rely on, however the tests were started."""

import os
import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def interrupts_as_on_a_terminal() -> None:
    """A shell's background job has SIGINT ignored, and programs that tests start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Whoever changes it in a test, changes it for that test alone."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of all programs here; tests run on no other."""
    return "asyncio"
