"""A worker that waits for its first client before it loads the rest of itself."""

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.wake import WAKE_PATH, WAKE_PORT
from protocol.worker import WORKER_PORT
from tests.integration.worker.process import SECRET, WorkerProcess
from worker import waiting

LONG = "600"


@pytest.fixture
def waits(tmp_path: Path) -> Iterator[WorkerProcess]:
    """One that has not been started."""
    it = WorkerProcess(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        it.environ["PERRY_WORKER_WAKE_PORT"] = str(free.getsockname()[1])
    try:
        yield it
    finally:
        it.close()


def listens(port: int) -> bool:
    """Whether somebody does; asked of the kernel, since to connect would be to come."""
    sockets = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in sockets)


def both_listen(worker: WorkerProcess) -> bool:
    return listens(worker.port) and listens(int(worker.environ["PERRY_WORKER_WAKE_PORT"]))


def loaded(worker: WorkerProcess) -> bool:
    """It says so itself, in its log."""
    return "listens on" in worker.log.read_text()


def test_it_is_loaded_by_the_control_planes_dial_which_is_answered(waits: WorkerProcess) -> None:
    waits.launch(LONG)
    waits.wait(lambda: both_listen(waits))
    assert not loaded(waits)
    small = waits.memory()
    connection = http.client.HTTPConnection("127.0.0.1", waits.port, timeout=60)
    connection.request("GET", "/elsewhere", headers={"Authorization": f"Bearer {SECRET}"})
    # That it is asked for what it does not have says no less.
    assert connection.getresponse().status in (404, 426)
    assert loaded(waits) and waits.memory() > small
    connection.close()
    assert waits.end() == 0


def test_it_is_loaded_by_a_wake_which_is_taken(waits: WorkerProcess) -> None:
    waits.launch(LONG)
    waits.wait(lambda: both_listen(waits))
    port = int(waits.environ["PERRY_WORKER_WAKE_PORT"])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", WAKE_PATH, b'{"text": "Done."}')
    assert connection.getresponse().status == 200
    assert loaded(waits)
    connection.close()


def test_where_nobody_comes_it_goes_on(waits: WorkerProcess) -> None:
    waits.launch("0.1")
    waits.wait(lambda: (waits.run / "socket").exists())
    assert loaded(waits)


def test_it_ends_when_told_also_while_it_waits(waits: WorkerProcess) -> None:
    waits.launch(LONG)
    waits.wait(lambda: both_listen(waits))
    assert waits.end() == -15


def test_where_a_port_is_taken_the_rest_of_it_says_so(waits: WorkerProcess) -> None:
    with socket.create_server(("127.0.0.1", int(waits.environ["PERRY_WORKER_WAKE_PORT"]))):
        waits.launch(LONG)
        waits.wait(lambda: loaded(waits) and "Wakes failed" in waits.log.read_text())


def test_its_ports_are_those_of_the_protocol_and_it_loads_next_to_nothing() -> None:
    assert (waiting.STREAM_PORT, waiting.DOOR_PORT) == (WORKER_PORT, WAKE_PORT)
    code = "import sys, worker.__main__, worker.waiting; print(*sorted(sys.modules))"
    said = subprocess.run([sys.executable, "-I", "-S", "-c", code_in(code)], capture_output=True, text=True, check=True)
    assert not {"asyncio", "logging", "typing", "msgspec", "re"} & set(said.stdout.split())


def code_in(code: str) -> str:
    return f"import sys; sys.path.insert(0, {str(Path(waiting.__file__).parents[1])!r}); {code}"
