"""Runs the comparisons that are named, or all."""

import concurrent.futures
import functools
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.bench import batches as army
from tests.bench import beside, floors, reading
from tests.bench import cron as cron_jobs
from tests.bench import sessions as agents_sessions
from tests.bench import tasks as dispatching
from tests.bench import wakes as waking
from tests.bench.measure import Figure, figure, line, take_turns
from tests.e2e.system import Device, System, docker, eventually, running

ROUNDS = 5
TEN = 10
IPERF_ROUNDS = 6
IPERF_SECONDS = 6
SETTLED_SECONDS = 45
"""After a join, until memory is what it stays at: both sides give back what joining took."""


class Bench:
    """A running system with a stock device of the owner."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.node = floors.build_bare_node()
        self.device = system.device("bench")
        self.device.join_as_owner()
        self._names = (f"bench{number}" for number in itertools.count())

    def start_and_ssh(self, name: str) -> None:
        """``perry start`` as a person types it, until a first command over the tailnet is through."""
        self.system.perry("start", name)
        ssh = "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=5"
        loop = f"until {ssh} workspace@{name} true 2>/dev/null; do sleep 0.05; done"
        self.device.run("timeout", "60", "sh", "-c", loop)

    def delete(self, name: str) -> None:
        self.system.call("workspaces.delete", {"name": name, "force": True})

    def one(self) -> float:
        name = next(self._names)
        began = time.monotonic()
        self.start_and_ssh(name)
        took = time.monotonic() - began
        self.delete(name)
        return took

    def ten(self) -> float:
        names = [next(self._names) for _ in range(TEN)]
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(TEN) as pool:
            list(pool.map(self.start_and_ssh, names))
        took = time.monotonic() - began
        for name in names:
            self.delete(name)
        return took

    def floor(self) -> float:
        joining = self.system.call("tailnet.join")
        took, made = floors.two_containers_and_a_node(self.system, self.node, joining["key"], joining["controlUrl"])
        docker("rm", "-f", *made)
        return took

    def floor_ten(self) -> float:
        joinings = [self.system.call("tailnet.join") for _ in range(TEN)]
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(TEN) as pool:
            runs = [
                pool.submit(floors.two_containers_and_a_node, self.system, self.node, j["key"], j["controlUrl"])
                for j in joinings
            ]
            concurrent.futures.wait(runs)
        took = time.monotonic() - began
        docker("rm", "-f", *(name for run in runs for name in run.result()[1]))
        return took


def start(bench: Bench) -> list[Figure]:
    ours, theirs = take_turns(bench.one, bench.floor, ROUNDS)
    return [figure("perry start → first ssh", "s", ours, theirs, most=1.15)]


def ten(bench: Bench) -> list[Figure]:
    ours, theirs = take_turns(bench.ten, bench.floor_ten, 2)
    return [figure("10 starts at once, all answering", "s", ours, theirs, most=1.25)]


def traffic(bench: Bench) -> list[Figure]:
    """Throughput, and memory idle and under load: the sidecar beside a stock tailscaled.

    Like is compared with like: both ends are on a bridge of their own, so that the machine routes the packets of both
    (on the sender's own bridge tailscaled got 5 % more), and the server that takes the bytes is in a container of its
    own beside both, so that its memory is counted for neither.
    """
    system = bench.system
    system.start_workspace("sink")
    other = system.device("other")
    other.join_as_owner(alone=True)
    for namespace in (system.container("sink", ".net"), other.container):
        docker("run", "-d", "--name", f"{namespace}-iperf", "--label", f"perry.instance={system.instance}",
               "--network", f"container:{namespace}", "--entrypoint", "iperf3",
               "perry/device:latest", "-s")  # fmt: skip
    time.sleep(SETTLED_SECONDS)
    idle = ([memory(system.container("sink", ".tailnet"))], [memory(other.container)])
    loaded: tuple[list[float], list[float]] = ([], [])

    def through(target: str, container: str, peaks: list[float]) -> Callable[[], float]:
        def run() -> float:
            with concurrent.futures.ThreadPoolExecutor() as pool:
                running_ = pool.submit(iperf, bench.device, target)
                highest = 0.0
                while not running_.done():
                    highest = max(highest, memory(container))
                peaks.append(highest)
                return running_.result()

        return run

    for name in ("sink", "other"):
        eventually(functools.partial(direct, bench.device, name), f"a direct way to {name}")
    ours, theirs = take_turns(
        through("sink", system.container("sink", ".tailnet"), loaded[0]),
        through("other", other.container, loaded[1]),
        IPERF_ROUNDS,
    )
    return [
        figure("throughput into a workspace", "Gbit/s", ours, theirs, least=1.0),
        figure("sidecar's memory, idle", "MiB", *idle, most=0.6),
        figure("sidecar's memory, under load", "MiB", *loaded, most=1.0),
    ]


def direct(device: Device, target: str) -> bool:
    """Whether packets go there without the coordinator's relay, which would be measured in place of both ends."""
    return device.run("tailscale", "ping", target, check=False)[0] == 0


def iperf(device: Device, target: str) -> float:
    _, output = device.run("iperf3", "-c", target, "-t", str(IPERF_SECONDS), "-J")
    received: float = msgspec.json.decode(output)["end"]["sum_received"]["bits_per_second"]
    return received / 1e9


def memory(container: str) -> float:
    """MiB as ``docker stats`` counts: without the file pages that could be dropped."""
    shown = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", container).split()[0]
    for unit, factor in (("GiB", 1024.0), ("MiB", 1.0), ("KiB", 1 / 1024), ("B", 1 / 1024**2)):
        if shown.endswith(unit):
            return float(shown.removesuffix(unit)) * factor
    raise ValueError(shown)


def cli(bench: Bench) -> list[Figure]:
    def list_workspaces() -> float:
        began = time.monotonic()
        bench.system.perry("list")
        return time.monotonic() - began

    def import_two() -> float:
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import click, httpx"], check=True)
        return time.monotonic() - began

    ours, theirs = take_turns(list_workspaces, import_two, 15)
    return [figure("perry list, wall time", "s", ours, theirs, most=1.5)]


def cron(_: Bench) -> list[Figure]:
    return cron_jobs.measured()


def sessions(_: Bench) -> list[Figure]:
    return agents_sessions.measured() + beside.measured()


def reading_sessions(_: Bench) -> list[Figure]:
    return reading.measured()


def wakes(_: Bench) -> list[Figure]:
    return waking.measured()


COMPARISONS: dict[str, Callable[[Bench], list[Figure]]] = {
    "cli": cli,
    "start": start,
    "traffic": traffic,
    "ten": ten,
    "cron": cron,
    "sessions": sessions,
    "wakes": wakes,
    "batches": lambda bench: army.measured(bench.system),
    "tasks": lambda bench: dispatching.measured(bench.system),
    "reading": reading_sessions,
}


def main() -> int:
    names = sys.argv[1:] or list(COMPARISONS)
    if unknown := [name for name in names if name not in COMPARISONS]:
        sys.stderr.write(f"There is no comparison {unknown[0]!r}; there are {', '.join(COMPARISONS)}.\n")
        return 2
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for system in running(Path(folder)):
            bench = Bench(system)
            for name in names:
                figures += COMPARISONS[name](bench)
    for each in figures:
        sys.stderr.write(line(each) + "\n")
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(figures), indent=2).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
