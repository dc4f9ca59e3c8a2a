"""The worker as a process of this machine, from the checkout, with a home of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
RECORDED = CHECKOUT / "tests/unit/worker/recorded"
SECRET = "w" * 43


class WorkerProcess:
    """``home`` is what it follows. ``port`` is its own, also over restarts."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.run = folder / "run"
        self.secret_file = folder / "secret"
        self.log = folder / "log"
        self.home.mkdir()
        self.run.mkdir(mode=0o700)
        self.secret_file.write_text(SECRET)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHONPATH": str(CHECKOUT),
            "PERRY_WORKER_HOST": "127.0.0.1",
            "PERRY_WORKER_PORT": str(self.port),
            "PERRY_WORKER_SECRET_FILE": str(self.secret_file),
            "PERRY_WORKER_SOCKET": str(self.run / "socket"),
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.launch()
        self.wait(self._listens)

    def launch(self, *words: str) -> None:
        """Start it, and wait for nothing."""
        command = [sys.executable, "-m", "worker", "serve", *words]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environ, stderr=log)

    def wait(self, until: Callable[[], bool]) -> None:
        """Until that is so, while it runs."""
        assert self.process is not None
        deadline = time.monotonic() + 30
        while not until():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return (self.run / "socket").exists()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(20)
        self.process = None
        return status

    def memory(self) -> int:
        """What it has now, in bytes."""
        assert self.process is not None
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def perry(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The small command, as a person types it inside."""
        command = [sys.executable, "-m", "worker", *words]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60, check=False)

    # --- what Claude Code would do

    def session_file(self, session_id: str) -> Path:
        return self.home / ".claude/projects/-home-workspace-alpha" / f"{session_id}.jsonl"

    def write(self, session_id: str) -> None:
        """A session that was recorded appears under this id; again, and it grows."""
        file = self.session_file(session_id)
        recorded = (RECORDED / "claude.jsonl").read_text().splitlines(keepends=True)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(recorded[:6]))
            return
        with file.open("a") as appended:
            appended.write("".join(recorded[6:]))

    def remove(self, session_id: str) -> None:
        self.session_file(session_id).unlink()

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.home)
