"""Reading the coding agents' sessions, without the stream and the index: what the worker's own part costs.

    python -m tests.bench.reading [MEGABYTES]

needs no Docker. Transcripts are of two kinds: ``recorded``, of which one percent is conversation, as two turns of
Claude Code's are; and ``talk``, which is much of it conversation.
"""

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from protocol.worker import PAGE_LIMIT
from tests.bench.measure import Figure, bounded, figure, line, take_turns
from tests.bench.transcripts import Writer
from worker.agents.claude import Claude
from worker.agents.registry import coding_agents
from worker.ports import Notice
from worker.sessions.index import Index
from worker.sessions.liveness import Processes
from worker.sessions.service import LocalSessions

MEGABYTES = 100
LARGE_MEGABYTES = 500
SESSIONS = 10_000
APPENDS = 100
QUIET_SECONDS = 5.0

RECORDED = Path(__file__).parents[1] / "unit/worker/recorded/claude.jsonl"


class Store:
    """A home folder with one session of Claude Code."""

    def __init__(self, folder: Path) -> None:
        self.claude = Claude(folder / ".claude", Processes())
        self.path = folder / ".claude/projects/-p/session.jsonl"
        self.path.parent.mkdir(parents=True)

    def read(self, cursor: str | None = None) -> str:
        """To its end, as a worker sends it; where to go on."""
        [found] = self.claude.look([str(self.path)], Index()).found
        while True:
            page = self.claude.read(found, cursor, PAGE_LIMIT)
            msgspec.json.encode(page)
            cursor = page.cursor
            if not page.more:
                return cursor


def write_recorded(path: Path, megabytes: float) -> None:
    """The recorded session again and again, with what was left out of it filled up to its size."""
    records = [json.loads(text) for text in RECORDED.read_bytes().splitlines()]
    left_out = [record for record in records if record["type"] == "attachment"]
    for record in left_out:
        record["attachment"]["content"] = "context " * (120_000 // 8 // len(left_out))
    turns = b"".join(json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records)
    with path.open("wb") as file:
        for number in range(max(1, int(megabytes * 1e6 / len(turns)))):
            file.write(turns.replace(b'"msg_000', b'"msg_%d_' % number))


def write_talk(path: Path, megabytes: float) -> None:
    """A session of many turns, all different."""
    writer = Writer(path.parents[3])
    writer.folder.mkdir(parents=True, exist_ok=True)
    writer.session("talk", int(megabytes * 1e6), 0)
    (writer.folder / "talk.jsonl").rename(path)


def reading(folder: Path, megabytes: int) -> list[Figure]:
    """A whole transcript, beside ``json.loads`` of its lines."""
    figures = []
    for kind, write in (("recorded", write_recorded), ("talk", write_talk)):
        store = Store(folder / kind)
        write(store.path, megabytes)

        def ours(store: Store = store) -> float:
            began = time.process_time()
            store.read()
            return time.process_time() - began

        def theirs(store: Store = store) -> float:
            began = time.process_time()
            with store.path.open("rb") as file:
                for text in file:
                    json.loads(text)
            return time.process_time() - began

        figures.append(figure(f"read {megabytes} MB, {kind}", "s", *take_turns(ours, theirs, 3), most=1.0))
        store.path.unlink()
    return figures


def appending(folder: Path) -> list[Figure]:
    """An append to a large file, beside one to a small one."""
    stores = []
    for name, megabytes in (("large", LARGE_MEGABYTES), ("small", 1)):
        store = Store(folder / name)
        write_recorded(store.path, megabytes)
        stores.append((store, [store.read()]))

    def append(store: Store, cursor: list[str]) -> float:
        times = []
        for number in range(APPENDS):
            with store.path.open("ab") as file:
                file.write(asked(f"more {number}"))
            began = time.perf_counter()
            cursor[0] = store.read(cursor[0])
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1000

    ours, theirs = take_turns(lambda: append(*stores[0]), lambda: append(*stores[1]), 3)
    stores[0][0].path.unlink()
    return [figure(f"append to {LARGE_MEGABYTES} MB, or to 1", "ms", ours, theirs, most=1.5)]


async def following(home: Path) -> list[Figure]:
    """Ten thousand sessions: at rest, and until a message is noticed."""
    folder = home / ".claude/projects"
    for number in range(SESSIONS):
        path = folder / f"-p{number % 200}" / f"session-{number}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(asked("hello"))
    told: asyncio.Queue[Notice] = asyncio.Queue()
    sessions = LocalSessions(coding_agents(home, {}), home)
    began = time.perf_counter()
    task = asyncio.create_task(sessions.run(told.put_nowait))
    await sessions.looked()
    looked = time.perf_counter() - began
    assert told.qsize() == SESSIONS, told.qsize()
    while not told.empty():
        told.get_nowait()
    gc.collect()
    began = time.process_time()
    await asyncio.sleep(QUIET_SECONDS)
    quiet = (time.process_time() - began) / QUIET_SECONDS * 100
    delays = []
    for number in range(APPENDS):
        await asyncio.sleep(0.03)
        write(folder / f"-p{number}" / f"session-{number}.jsonl", asked("more"))
        began = time.perf_counter()
        await told.get()
        delays.append((time.perf_counter() - began) * 1000)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    delays.sort()
    return [
        bounded(f"{SESSIONS} sessions, first look", "s", [looked], most=5),
        bounded(f"{SESSIONS} sessions, at rest", "% core", [quiet], most=1),
        bounded("message appended → noticed, median", "ms", [delays[len(delays) // 2]], most=20),
        bounded("message appended → noticed, p99", "ms", [delays[int(len(delays) * 0.99)]], most=50),
    ]


def resting(folder: Path) -> Figure:
    """Memory of a process that follows them; this one has more in it."""
    program = f"""
import asyncio, pathlib
from worker.agents.registry import coding_agents
from worker.sessions.service import LocalSessions
async def main():
    home = pathlib.Path({str(folder)!r})
    sessions = LocalSessions(coding_agents(home, {{}}), home)
    task = asyncio.create_task(sessions.run(lambda notice: None))
    await sessions.looked()
    print(open("/proc/self/status").read().partition("VmRSS:")[2].split()[0])
    task.cancel()
asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    return bounded(f"{SESSIONS} sessions, memory", "MiB", [int(ran.stdout) / 1024], most=60)


def write(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def asked(text: str) -> bytes:
    return json.dumps({"type": "user", "uuid": "u", "message": {"role": "user", "content": text}}).encode() + b"\n"


def measured(megabytes: int = MEGABYTES) -> list[Figure]:
    """All of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = reading(folder, megabytes) + appending(folder)
        figures += asyncio.run(following(folder / "many"))
        return [*figures, resting(folder / "many")]


if __name__ == "__main__":
    for each in measured(int(sys.argv[1]) if len(sys.argv) > 1 else MEGABYTES):
        sys.stdout.write(line(each) + "\n")
