"""Sessions: a real worker in a process of its own on a folder of transcripts, and the index that follows it.

    python -m tests.bench.sessions [MEGABYTES]

needs no Docker. The goals are for a thousand megabytes in ten thousand sessions, which take some minutes and three
gigabytes of disk; by default it is two hundred. ``PERRY_BENCH_WHOLE=1 make bench`` takes a thousand too.
"""

import asyncio
import json
import os
import random
import secrets
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
from websockets.asyncio.client import ClientConnection, connect

from controlplane.adapters.worker_ws import WebSocketWorkers
from controlplane.errors import WorkerUnavailable
from controlplane.sessions import fulltext, query
from protocol.sessions import ListSessions, NewMessages, SearchSessions, frame_decoder
from protocol.version import VERSION
from tests.bench.measure import Figure, figure, line
from tests.bench.transcripts import BEGAN, Writer
from tests.fakes.surface import TOKEN, Surface

MEGABYTES = 1000 if os.environ.get("PERRY_BENCH_WHOLE") else 200
SESSIONS_OF_A_GIGABYTE = 10_000
LARGE = 500
APPENDS = 200
SEARCHES = 60
NAME = "bench"


class Worker:
    """The worker's process on a home folder. ``cpu`` is what it has used, in seconds."""

    def __init__(self, home: Path, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.secret = secrets.token_urlsafe(32)
        (folder / "secret").write_text(self.secret)
        environ = {
            **os.environ,
            "HOME": str(home),
            "PERRY_WORKER_HOST": "127.0.0.1",
            "PERRY_WORKER_PORT": self.address.partition(":")[2],
            "PERRY_WORKER_SECRET_FILE": str(folder / "secret"),
            "PERRY_WORKER_SOCKET": str(folder / "none" / "socket"),
        }
        self._log = (folder / "worker.log").open("wb")
        self._process = subprocess.Popen([sys.executable, "-m", "worker", "serve"], env=environ, stderr=self._log)

    def cpu(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


@asynccontextmanager
async def following(surface: Surface, worker: Worker, name: str = NAME) -> AsyncIterator[None]:
    """What the fleet does, once."""
    workers = WebSocketWorkers(VERSION)
    async with anyio.create_task_group() as tasks:
        ready = anyio.Event()

        async def follow() -> None:
            while True:
                try:
                    async with workers.dial(worker.address, worker.secret) as link:
                        surface.session_follower.attached(name, link)
                        ready.set()
                        async for event in link.events():
                            surface.session_follower.told(name, event)
                except WorkerUnavailable:
                    await anyio.sleep(0.05)

        tasks.start_soon(follow)
        await ready.wait()
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
            surface.session_follower.detached(name)


async def indexed(surface: Surface, sessions: int) -> tuple[float, float]:
    """When every session was read, and when all of them could be searched."""
    began = time.monotonic()
    read = 0.0
    database = surface.sessions_database
    while True:
        await anyio.sleep(0.05)
        done, waiting = await database.read(
            lambda db: (
                db.execute("SELECT count(*) FROM sessions WHERE mark IS NOT NULL").fetchone()[0],
                db.execute("SELECT count(*) FROM pending").fetchone()[0],
            )
        )
        if done >= sessions and not read:
            read = time.monotonic() - began
        if read and not waiting:
            return read, time.monotonic() - began


def decode_all(folder: Path) -> float:
    """The floor: every line through ``json.loads``, on one core."""
    began = time.monotonic()
    for file in folder.iterdir():
        with file.open("rb") as lines:
            for record in lines:
                json.loads(record)
    return time.monotonic() - began


def fulltext_alone(database: Path, scratch: Path) -> float:
    """What no index by FTS5 can be quicker than: the same text put into an empty one of the same options, by one
    thread, without getting or keeping the text."""
    took = 0.0
    with (
        closing(sqlite3.connect(database)) as source,
        closing(sqlite3.connect(scratch, isolation_level=None)) as target,
    ):
        target.execute("PRAGMA journal_mode = WAL")
        target.execute("PRAGMA synchronous = NORMAL")
        target.execute(
            "CREATE VIRTUAL TABLE texts USING fts5(said, tools, scope, content = '', "
            "tokenize = 'unicode61 remove_diacritics 2')"
        )
        for option, value in (("hashsize", 33554432), ("automerge", 0), ("crisismerge", 512)):
            target.execute("INSERT INTO texts (texts, rank) VALUES (?, ?)", (option, value))
        rows = source.execute("SELECT id, role, blocks FROM messages ORDER BY id")
        while batch := rows.fetchmany(fulltext.BATCH):
            texts = [(id_, *query.words(role, blocks), "w1 a636c61756465") for id_, role, blocks in batch]
            began = time.monotonic()
            target.execute("BEGIN")
            target.executemany("INSERT INTO texts (rowid, said, tools, scope) VALUES (?, ?, ?, ?)", texts)
            target.execute("COMMIT")
            took += time.monotonic() - began
    return took


def ripgrep(folder: Path, words: list[str]) -> float:
    """Files that have all the words on a line, warm."""
    pattern = ".*".join(words)
    began = time.monotonic()
    subprocess.run(["rg", "--no-messages", "-m", "1", "-l", pattern, str(folder)], capture_output=True, check=False)
    return time.monotonic() - began


def limit(name: str, unit: str, values: list[float], share: float, most: float, note: str = "") -> Figure:
    """The value that this share of all is within, beside a goal that is no comparison."""
    value = sorted(values)[min(int(len(values) * share), len(values) - 1)]
    return Figure(
        name=name,
        unit=unit,
        candidate=[round(statistics.median(values), 5), round(value, 5), round(max(values), 5)],
        floor=[],
        ratio=round(value / most, 3),
        goal=f"≤ {most} {unit}",
        met=value <= most,
        note=note or f"median, p{share * 100:.0f}, most",
    )


async def appended(
    port: int, writer: Writer, session_id: str, name: str = NAME, more: Callable[[], bool] = lambda: True
) -> list[float]:
    """From a line in the transcript to a frame at a client: seconds, each; while there is ``more`` to come."""
    took: list[float] = []
    headers = {"Authorization": f"Bearer {TOKEN}"}
    wanted = {"type": "subscribe", "workspace": name, "agent": "claude", "sessionId": session_id}
    async with connect(f"ws://127.0.0.1:{port}/sessions", additional_headers=headers, proxy=None, max_size=None) as ws:
        await ws.send(json.dumps(wanted))
        await anyio.sleep(0.5)
        with (writer.folder / f"{session_id}.jsonl").open("ab", buffering=0) as file:
            first = random.randrange(1 << 30)
            for number in range(first, first + APPENDS):
                if not more():
                    break
                text = f"append {number} of {session_id}"
                began = time.monotonic()
                file.write(writer.answer(session_id, text, number))
                with anyio.fail_after(20):
                    await heard(ws, text)
                took.append(time.monotonic() - began)
                await anyio.sleep(random.uniform(0.01, 0.06))
    return took


async def heard(ws: ClientConnection, text: str) -> None:
    while True:
        frame = frame_decoder.decode(await ws.recv())
        if isinstance(frame, NewMessages) and text in str(frame.items):
            return


async def measure(megabytes: float, folder: Path) -> list[Figure]:
    home = folder / "home"
    writer = Writer(home)
    sessions = max(int(SESSIONS_OF_A_GIGABYTE * megabytes / 1000), 10)
    written = writer.write(megabytes, sessions)
    size = f"{written / 1e6:.0f} MB, {sessions} sessions"
    floor = decode_all(writer.folder)
    surface = Surface(folder)
    figures: list[Figure] = []
    worker = Worker(home, folder)
    try:
        async with surface.served() as port, following(surface, worker):
            read, searched = await indexed(surface, sessions)
            cold = figure("cold index", "s", [searched], [floor], most=2.0)
            note = f"{size}; listed and readable after {read:.2f} s; worker's CPU {worker.cpu():.2f} s"
            figures.append(msgspec.structs.replace(cold, note=note))
            # The pieces that the full text was written in are merged before it is searched.
            while await surface.sessions_database.write(fulltext.merge):
                pass
            alone = await anyio.to_thread.run_sync(fulltext_alone, surface.sessions_database.path, folder / "alone.db")
            beside = figure("cold index, beside FTS5 alone on its text", "s", [searched], [alone], most=2.0)
            figures.append(msgspec.structs.replace(beside, note=f"FTS5 alone is {alone / floor:.1f} × json.loads"))
            figures += await searching(surface, writer, size)
            figures.append(await listing(surface, size))
            figures += await living(surface, writer, worker, port)
    finally:
        worker.end()
    return figures


async def searching(surface: Surface, writer: Writer, size: str) -> list[Figure]:
    chance = random.Random(2)
    queries = [writer.text(chance.choice((1, 2, 3))).split() for _ in range(SEARCHES)] + [
        [writer.words[rank]] for rank in (0, 1, 10, 100, 59_000)
    ]
    ours: list[float] = []
    theirs: list[float] = []
    for words in queries:
        began = time.monotonic()
        await surface.services.sessions.search(SearchSessions(query=" ".join(words)))
        ours.append(time.monotonic() - began)
        if len(theirs) < 5:
            ripgrep(writer.folder, words)
            theirs.append(ripgrep(writer.folder, words))
    return [
        limit("sessions.search", "s", ours, 0.95, 0.05, f"{size}; median, p95, most"),
        figure("sessions.search beside ripgrep, warm", "s", ours, theirs, most=1.0),
    ]


async def listing(surface: Surface, size: str) -> Figure:
    took: list[float] = []
    for _ in range(100):
        began = time.monotonic()
        page = await surface.services.sessions.list_(ListSessions())
        msgspec.json.encode(page)
        took.append(time.monotonic() - began)
    return limit("sessions.list, first page", "s", took, 0.95, 0.015, f"{size}; median, p95, most")


async def living(surface: Surface, writer: Writer, worker: Worker, port: int) -> list[Figure]:
    """Appends to a small session, and to a large one."""
    small, large = "ffffffff-0000-4000-8000-000000000001", "ffffffff-0000-4000-8000-000000000002"
    writer.session(small, 20_000, 1)
    filler = {"type": "attachment", "attachment": {"content": writer.text(3_000)}, "sessionId": large}
    record = json.dumps(filler, separators=(",", ":")).encode() + b"\n"
    with (writer.folder / f"{large}.jsonl").open("wb") as file:
        file.writelines(writer.turn(large, 0, BEGAN))
        for _ in range(LARGE * 1_000_000 // len(record)):
            file.write(record)
    await known(surface, (small, large))
    before = worker.cpu()
    quick = await appended(port, writer, small)
    between = worker.cpu()
    slow = await appended(port, writer, large)
    after = worker.cpu()
    seen = limit("message appended → seen by a client", "s", quick, 0.99, 0.1)
    proportion = figure(f"append to a {LARGE} MB file, beside a 20 kB one", "s", slow, quick, most=1.5)
    note = f"worker's CPU for {APPENDS} appends: {after - between:.2f} s, for the small one {between - before:.2f} s"
    return [seen, msgspec.structs.replace(proportion, note=note)]


async def known(surface: Surface, session_ids: Sequence[str]) -> None:
    """Until these were read to their end."""
    marks = ", ".join("?" * len(session_ids))
    query = f"SELECT count(*) FROM sessions WHERE mark IS NOT NULL AND session_id IN ({marks})"
    with anyio.fail_after(120):
        while True:
            if await surface.sessions_database.read(lambda db: db.execute(query, session_ids).fetchone()[0]) == len(
                session_ids
            ):
                return
            await anyio.sleep(0.1)


def measured() -> list[Figure]:
    """All figures, of the default size."""
    return run(MEGABYTES)


def run(megabytes: float) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(megabytes, Path(folder)))


def main() -> None:
    figures = run(float(sys.argv[1]) if len(sys.argv) > 1 else MEGABYTES)
    for each in figures:
        sys.stderr.write(f"{line(each)}  {each.note}\n")
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(figures), indent=2).decode() + "\n")


if __name__ == "__main__":
    main()
