"""What is said in one workspace, while the sessions of another are read for the first time.

    python -m tests.bench.beside [MEGABYTES]

needs no Docker.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import anyio

from tests.bench.measure import Figure, line
from tests.bench.sessions import SESSIONS_OF_A_GIGABYTE, Worker, appended, following, indexed, known, limit
from tests.bench.transcripts import Writer
from tests.fakes.surface import Surface

MEGABYTES = 100
SESSION = "ffffffff-0000-4000-8000-000000000001"


async def measure(megabytes: float, folder: Path) -> Figure:
    """From an append to a frame at a client, as long as the other workspace is not indexed."""
    places = {name: folder / name for name in ("cold", "live", "index")}
    for place in places.values():
        place.mkdir()
    sessions = max(int(SESSIONS_OF_A_GIGABYTE * megabytes / 1000), 10)
    written = Writer(places["cold"]).write(megabytes, sessions)
    writer = Writer(places["live"], seed=2)
    writer.folder.mkdir(parents=True)
    writer.session(SESSION, 20_000, 1)
    surface = Surface(places["index"])
    live, cold = Worker(places["live"], places["live"]), Worker(places["cold"], places["cold"])
    took: list[float] = []
    ended = 0.0
    try:
        async with surface.served() as port, following(surface, live, "live"):
            await known(surface, (SESSION,))
            began = time.monotonic()

            async def until_indexed() -> None:
                nonlocal ended
                await indexed(surface, sessions + 1)
                ended = time.monotonic() - began

            async with following(surface, cold, "cold"), anyio.create_task_group() as tasks:
                tasks.start_soon(until_indexed)
                while not ended:
                    took += await appended(port, writer, SESSION, "live", lambda: not ended)
    finally:
        live.end()
        cold.end()
    note = f"{len(took)} appends during {written / 1e6:.0f} MB in {ended:.1f} s; median, p99, most"
    return limit("message appended → seen, beside a cold index", "s", took, 0.99, 0.1, note)


def measured(megabytes: float = MEGABYTES) -> list[Figure]:
    """The figure, of the default size."""
    with tempfile.TemporaryDirectory() as folder:
        return [asyncio.run(measure(megabytes, Path(folder)))]


def main() -> None:
    for each in measured(float(sys.argv[1]) if len(sys.argv) > 1 else MEGABYTES):
        sys.stdout.write(f"{line(each)}  {each.note}\n")


if __name__ == "__main__":
    main()
