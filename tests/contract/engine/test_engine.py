"""One contract for Docker and for its fake. The real one needs an engine and the image ``perry/base``."""

import io
import secrets
import tarfile
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import anyio
import pytest

from controlplane.adapters.docker_engine import DockerEngine
from controlplane.errors import EngineConflict, EngineError, EngineUnavailable, ImageMissing
from controlplane.ports import (
    ContainerSpec,
    ContainerState,
    Engine,
    EngineEvent,
    File,
    NetworkSpec,
    Process,
    VolumeMount,
)
from tests.fakes.engine import FakeContainer, FakeEngine

pytestmark = pytest.mark.anyio

IMAGE = "perry/base:latest"


class Bench:
    """An engine, and names that nothing else has."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.prefix = f"contract-{secrets.token_hex(3)}"
        self.labels = {"perry.instance": self.prefix}

    def container(self, name: str, script: str = "echo ready; exec sleep 300", **fields: object) -> ContainerSpec:
        spec = {
            "name": f"{self.prefix}-{name}",
            "image": IMAGE,
            "labels": {**self.labels, "perry.spec": "1"},
            "command": ("sh", "-c", script),
            "stop_seconds": 0,
            **fields,
        }
        return ContainerSpec(**spec)  # type: ignore[arg-type]

    def network(self, name: str, subnet: str) -> NetworkSpec:
        number = secrets.token_hex(4)
        return NetworkSpec(name=f"{self.prefix}-{name}", subnet=subnet, interface=f"ct-{number}", labels=self.labels)


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.engine)])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    engine: Engine
    if request.param == "fake":
        fake = FakeEngine([IMAGE])
        fake.image_labels[IMAGE] = {"perry.source": "1"}
        fake.image_folders[IMAGE, "/etc/apt"] = _tar("apt/apt.conf.d/90perry")
        fake.on_start = _ready
        engine = fake
    else:
        engine = DockerEngine()
    it = Bench(engine)
    try:
        yield it
    finally:
        for container in await engine.containers(it.labels):
            await engine.remove_container(container.id)
        await engine.remove_images(it.labels)
        for network in await engine.networks(it.labels):
            await engine.remove_network(network.name)
        for volume in await engine.volumes(it.labels):
            await engine.remove_volume(volume.name)
        await engine.close()


def _ready(container: FakeContainer) -> None:
    container.say("ready")


async def test_a_container_lives(bench: Bench) -> None:
    spec = bench.container("a")
    identity = await bench.engine.ensure_container(spec)
    created = await bench.engine.inspect(spec.name)
    assert created is not None and not created.running and created.status == "created" and created.started is None
    await bench.engine.start(spec.name)
    await bench.engine.start(spec.name)
    running = await bench.engine.inspect(spec.name)
    assert running is not None and running.running and running.id == identity
    assert isinstance(running.started, datetime)
    await bench.engine.stop(spec.name, 0)
    await bench.engine.stop(spec.name, 0)
    stopped = await bench.engine.inspect(spec.name)
    assert stopped is not None and not stopped.running and stopped.status == "exited"
    await bench.engine.remove_container(spec.name)
    await bench.engine.remove_container(spec.name)
    assert await bench.engine.inspect(spec.name) is None


async def test_a_container_can_be_made_before_its_network_and_started_after_it(bench: Bench) -> None:
    network = bench.network("n", "10.118.201.0/28")
    spec = bench.container("a", network=network.name)
    await bench.engine.ensure_container(spec)
    with pytest.raises(EngineError):
        await bench.engine.start(spec.name)
    await bench.engine.ensure_network(network)
    await bench.engine.start(spec.name)
    running = await bench.engine.inspect(spec.name)
    assert running is not None and running.running
    assert running.address is not None and running.address.startswith("10.118.201.")


def _got(container: FakeContainer, data: bytes) -> None:
    for line in data.decode().splitlines():
        container.say(f"got {line}")


async def test_what_is_sent_comes_to_standard_input_which_stays_open(bench: Bench) -> None:
    spec = bench.container("a", 'echo ready; while read -r line; do echo "got $line"; done; echo over', stdin=True)
    if isinstance(bench.engine, FakeEngine):
        bench.engine.on_send = _got
    identity = await bench.engine.ensure_container(spec)
    with pytest.raises(EngineError):
        await bench.engine.send("contract-none", b"nothing\n")
    for said in (b"one\ntwo\n", b"three " + b"3" * 20_000 + b"\n"):
        await bench.engine.start(spec.name)
        await bench.engine.send(identity, said)
        await bench.engine.send(spec.name, b"last\n")
        heard: list[str] = []
        with anyio.fail_after(30):
            async for line in bench.engine.follow_stdout(spec.name):
                heard.append(line)
                if line == "got last":
                    break
        assert heard == ["ready", *(f"got {line}" for line in said.decode().splitlines()), "got last"]
        await bench.engine.stop(spec.name, 0)


async def test_what_is_frozen_runs_and_takes_no_commands(bench: Bench) -> None:
    spec = bench.container("a")
    await bench.engine.ensure_container(spec)
    with pytest.raises(EngineConflict):
        await bench.engine.pause(spec.name)
    await bench.engine.start(spec.name)
    await bench.engine.pause(spec.name)
    await bench.engine.pause(spec.name)
    frozen = await bench.engine.inspect(spec.name)
    assert frozen is not None and frozen.running and frozen.status == "paused"
    assert [each.running for each in await bench.engine.containers(bench.labels)] == [True]
    with pytest.raises(EngineConflict):
        await bench.engine.exec(spec.name, ["true"])
    await bench.engine.unpause(spec.name)
    await bench.engine.unpause(spec.name)
    await bench.engine.unpause("contract-none")
    assert (await bench.engine.exec(spec.name, ["true"])).exit_code == 0
    await bench.engine.pause(spec.name)
    await bench.engine.remove_container(spec.name)
    assert await bench.engine.inspect(spec.name) is None


async def test_a_container_becomes_an_image_until_its_labels_remove_it(bench: Bench) -> None:
    spec = bench.container("a", "touch /made; exec sleep 300")
    await bench.engine.ensure_container(spec)
    await bench.engine.start(spec.name)
    image, labels = f"{bench.prefix}:made", {"perry.instance": bench.prefix, "perry.workspace": "made"}
    await bench.engine.commit(spec.name, image, labels)
    assert await bench.engine.image_id(image) is not None
    again = bench.container("b", image=image, entrypoint=("sleep",), command=("300",))
    await bench.engine.ensure_container(again)
    await bench.engine.start(again.name)
    assert (await bench.engine.exec(again.name, ["test", "-e", "/made"])).exit_code == 0
    await bench.engine.remove_images(labels)
    assert await bench.engine.image_id(image) is not None, "a container uses it"
    await bench.engine.remove_container(again.name)
    await bench.engine.remove_images({**labels, "perry.workspace": "another"})
    assert await bench.engine.image_id(image) is not None
    await bench.engine.remove_images(labels)
    await bench.engine.remove_images(labels)
    assert await bench.engine.image_id(image) is None


async def test_verbs_on_what_is_missing(bench: Bench) -> None:
    await bench.engine.stop("contract-none")
    await bench.engine.remove_container("contract-none")
    await bench.engine.remove_network("contract-none")
    await bench.engine.remove_volume("contract-none")
    assert await bench.engine.inspect("contract-none") is None
    assert await bench.engine.logs("contract-none", tail=1) == []
    with pytest.raises(EngineError):
        await bench.engine.start("contract-none")


async def test_an_equal_spec_keeps_the_container_and_another_replaces_it(bench: Bench) -> None:
    first = await bench.engine.ensure_container(bench.container("a"))
    assert await bench.engine.ensure_container(bench.container("a")) == first
    labels = {**bench.labels, "perry.spec": "2"}
    assert await bench.engine.ensure_container(bench.container("a", labels=labels)) != first


async def test_a_container_of_somebody_else_is_left_alone(bench: Bench) -> None:
    theirs = await bench.engine.ensure_container(bench.container("a"))
    with pytest.raises(EngineConflict):
        await bench.engine.ensure_container(
            bench.container("a", labels={"perry.instance": "another", "perry.spec": "2"})
        )
    present = await bench.engine.inspect(theirs)
    assert present is not None


async def test_a_missing_image_has_its_own_error(bench: Bench) -> None:
    assert await bench.engine.image_id("contract/none:1") is None
    assert await bench.engine.image_id(IMAGE) is not None
    with pytest.raises(ImageMissing):
        await bench.engine.ensure_container(bench.container("a", image="contract/none:1"))


async def test_networks_never_overlap(bench: Bench) -> None:
    spec = bench.network("n", "10.112.0.0/28")
    await bench.engine.ensure_network(spec)
    await bench.engine.ensure_network(spec)
    (found,) = await bench.engine.networks(bench.labels)
    assert (found.name, found.subnet) == (spec.name, spec.subnet)
    assert spec.subnet in await bench.engine.subnets_in_use()
    with pytest.raises(EngineConflict):
        await bench.engine.ensure_network(bench.network("m", "10.112.0.0/24"))


async def test_a_namespace_is_shared_with_a_container_that_runs(bench: Bench) -> None:
    owner = bench.container("owner")
    joined = bench.container("joined", network_of=owner.name)
    identity = await bench.engine.ensure_container(owner)
    await bench.engine.ensure_container(joined)
    with pytest.raises(EngineError):
        await bench.engine.start(joined.name)
    await bench.engine.start(owner.name)
    await bench.engine.start(joined.name)
    found = await bench.engine.inspect(joined.name)
    assert found is not None and found.running and found.network_of == identity


async def test_volumes_keep_their_labels_and_are_not_removed_in_use(bench: Bench) -> None:
    volume = f"{bench.prefix}-v"
    await bench.engine.ensure_volume(volume, bench.labels)
    await bench.engine.ensure_volume(volume, bench.labels)
    spec = bench.container("a", volumes=(VolumeMount(volume, "/data"),))
    await bench.engine.ensure_container(spec)
    assert [(found.name, found.labels) for found in await bench.engine.volumes(bench.labels)] == [
        (volume, bench.labels)
    ]
    with pytest.raises(EngineConflict):
        await bench.engine.remove_volume(volume)
    await bench.engine.put_files(spec.name, [File(path="/data/key", content=b"x", mode=0o600)])
    await bench.engine.remove_container(spec.name)
    await bench.engine.remove_volume(volume)
    assert await bench.engine.volumes(bench.labels) == []


async def test_a_folder_of_the_machine_is_mounted_and_never_made(bench: Bench, tmp_path: Path) -> None:
    there, missing = tmp_path / "with:colon", tmp_path / "missing"
    there.mkdir()
    await bench.engine.ensure_container(bench.container("a", volumes=(VolumeMount(str(there), "/data", True),)))
    with pytest.raises(EngineError):
        await bench.engine.ensure_container(bench.container("b", volumes=(VolumeMount(str(missing), "/data"),)))
    assert not missing.exists()
    assert not any(volume.name.startswith("/") for volume in await bench.engine.volumes({}))


async def test_output_is_followed_from_the_latest_start_to_the_end(bench: Bench) -> None:
    spec = bench.container("a")
    await bench.engine.ensure_container(spec)
    for _ in range(2):
        await bench.engine.start(spec.name)
        lines: list[str] = []
        with anyio.fail_after(10):
            async for line in bench.engine.follow_stdout(spec.name):
                lines.append(line)
                if line == "ready":
                    await bench.engine.stop(spec.name, 0)
        assert lines == ["ready"]


async def test_events_tell_what_happens_to_ours(bench: Bench) -> None:
    heard: list[EngineEvent] = []
    listening, over = anyio.Event(), anyio.Event()

    async def listen() -> None:
        listening.set()
        async for event in bench.engine.events(bench.labels):
            heard.append(event)
            if event.action == "destroy":
                over.set()

    spec = bench.container("a")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await listening.wait()
        await anyio.sleep(0.2)
        await bench.engine.ensure_container(spec)
        await bench.engine.start(spec.name)
        await bench.engine.stop(spec.name, 0)
        await bench.engine.remove_container(spec.name)
        with anyio.fail_after(10):
            await over.wait()
        tasks.cancel_scope.cancel()
    telling = [event.action for event in heard if event.action in ("start", "die", "destroy")]
    assert telling == ["start", "die", "destroy"]
    assert {event.name for event in heard} == {spec.name}
    assert {event.labels["perry.instance"] for event in heard} == {bench.prefix}


async def _running(bench: Bench) -> str:
    spec = bench.container("a")
    await bench.engine.ensure_container(spec)
    await bench.engine.start(spec.name)
    return spec.name


async def _all(process: Process) -> dict[str, bytes]:
    """All that it still prints."""
    said = {"stdout": b"", "stderr": b""}
    with anyio.fail_after(20):
        while (chunk := await process.read()) is not None:
            said[chunk[0]] += chunk[1]
    return said


async def _exit_code(process: Process) -> int:
    with anyio.fail_after(5):
        while True:
            if (code := await process.exit_code()) is not None:
                return code
            await anyio.sleep(0.02)


async def test_a_process_has_its_streams_and_an_exit_code(bench: Bench) -> None:
    container = await _running(bench)
    script = 'test "$A" = "b c" && cat && echo no >&2 && exit 3'
    async with bench.engine.process(container, ["sh", "-c", script], env={"A": "b c"}) as process:
        assert await process.exit_code() is None
        await process.write(b"some \x00")
        await process.write(b"input")
        await process.end_input()
        assert await _all(process) == {"stdout": b"some \x00input", "stderr": b"no\n"}
        assert await _exit_code(process) == 3
        await process.write(b"nobody reads this")
        await process.end_input()


async def test_a_process_that_nobody_reads_waits(bench: Bench) -> None:
    container = await _running(bench)
    size = 20_000_000
    async with bench.engine.process(container, ["head", "-c", str(size), "/dev/zero"]) as process:
        await anyio.sleep(0.5)
        assert await process.exit_code() is None
        assert len((await _all(process))["stdout"]) == size
        assert await _exit_code(process) == 0


async def test_a_process_that_reads_nothing_holds_up_who_writes(bench: Bench) -> None:
    container = await _running(bench)
    async with bench.engine.process(container, ["sleep", "60"]) as process:
        written = 0
        with anyio.move_on_after(1):
            while written < 100_000_000:
                await process.write(bytes(1 << 16))
                written += 1 << 16
        assert written < 10_000_000


async def test_a_process_leads_a_session_that_can_be_signalled(bench: Bench) -> None:
    container = await _running(bench)
    async with bench.engine.process(container, ["sh", "-c", "echo $$; sleep 60; echo survived"]) as process:
        said = await process.read()
        assert said is not None
        signal = ["sh", "-c", 'kill -s "$1" -- "-$2"', "perry-signal", "TERM", said[1].decode().strip()]
        assert (await bench.engine.exec(container, signal)).exit_code == 0
        assert (await _all(process))["stdout"] == b""
        assert await _exit_code(process) == 128 + 15


async def test_a_process_may_have_a_terminal(bench: Bench) -> None:
    container = await _running(bench)
    script = 'test -t 0 && test -t 1 && read word && stty size && echo "$word" >&2 && exit 4'
    async with bench.engine.process(container, ["sh", "-c", script], tty=True) as process:
        await process.resize(133, 44)
        await process.write(b"\x10typed\x10\r")
        said = await _all(process)
        assert said["stderr"] == b""
        assert b"44 133\r\n" in said["stdout"]
        assert said["stdout"].endswith(b"typed\x10\r\n")
        assert await _exit_code(process) == 4
        await process.resize(80, 24)


async def test_a_process_that_cannot_be_started_says_so(bench: Bench) -> None:
    container = await _running(bench)
    async with bench.engine.process(container, ["no-such-program"]) as process:
        said = await _all(process)
        assert b"no-such-program" in said["stdout"] + said["stderr"]
        assert await _exit_code(process) in (126, 127)


async def test_a_container_that_stops_ends_its_processes(bench: Bench) -> None:
    container = await _running(bench)
    async with bench.engine.process(container, ["sh", "-c", "echo up; exec sleep 60"]) as process:
        assert await process.read() == ("stdout", b"up\n")
        await bench.engine.stop(container, 0)
        assert await _all(process) == {"stdout": b"", "stderr": b""}
    with pytest.raises(EngineError):
        async with bench.engine.process(container, ["true"]):
            pass


async def test_logs_are_followed_from_a_moment_to_the_end(bench: Bench) -> None:
    container = await _running(bench)
    with anyio.fail_after(10):
        async for _ in bench.engine.follow_logs(container):
            break
        before = await bench.engine.logs(container, tail=5)
        async for entry in bench.engine.follow_logs(container):
            assert entry == before[0]
            break
        await bench.engine.stop(container, 0)
        assert [entry async for entry in bench.engine.follow_logs(container, since=before[-1].at)] == []
        await bench.engine.start(container)
        entries = []
        async for entry in bench.engine.follow_logs(container, since=before[-1].at):
            entries.append(entry)
            await bench.engine.stop(container, 0)
        assert [entry.text for entry in entries] == ["ready"]
        assert entries[0].at > before[-1].at


async def test_an_engine_that_is_away_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    nowhere = DockerEngine(f"unix://{tmp_path_factory.mktemp('none')}/docker.sock")
    fake = FakeEngine()
    fake.go_down()
    for engine in (nowhere, fake):
        with pytest.raises(EngineUnavailable):
            await engine.info()
        with pytest.raises(EngineUnavailable):
            await engine.containers({})
        await engine.close()


async def test_commands_run_with_input_output_and_exit_code() -> None:
    """Docker alone: the fake runs nothing."""
    engine = DockerEngine()
    bench = Bench(engine)
    spec = bench.container("a")

    async def given() -> AsyncIterator[bytes]:
        yield b"some "
        yield b"input"

    try:
        await engine.ensure_container(spec)
        await engine.start(spec.name)
        output = await engine.exec(spec.name, ["sh", "-c", "cat; echo no >&2; exit 3"], stdin=given())
        assert (output.exit_code, output.stdout, output.stderr, output.truncated) == (3, b"some input", b"no\n", False)
        cut = await engine.exec(spec.name, ["head", "-c", "5000", "/dev/zero"], limit=100)
        assert len(cut.stdout) == 100 and cut.truncated
        literal = "$(id); `id` 'x' \"y\""
        assert (await engine.exec(spec.name, ["printf", "%s", literal])).stdout.decode() == literal
        once = await engine.run_once(bench.container("once", "echo out; echo err >&2; exit 4"))
        assert (once.exit_code, once.stdout, once.stderr) == (4, b"out\n", b"err\n")
        assert await engine.inspect(f"{bench.prefix}-once") is None
        entries = await engine.logs(spec.name, tail=10)
        assert [entry.text for entry in entries] == ["ready"]
        assert await engine.logs(spec.name, tail=10, since=entries[-1].at) == []
    finally:
        await engine.remove_container(spec.name)
        await engine.close()


def _tar(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


async def test_labels_and_folders_of_images_are_read(bench: Bench) -> None:
    labels = await bench.engine.labels_of(IMAGE)
    assert labels and labels.items() <= (await _inspected(bench)).labels.items()
    assert await bench.engine.labels_of("perry/nosuch:latest") is None
    with pytest.raises(ImageMissing):
        await bench.engine.read_folder("perry/nosuch:latest", "/etc")
    with pytest.raises(EngineError):
        await bench.engine.read_folder(IMAGE, "/no/such/folder")
    with tarfile.open(fileobj=io.BytesIO(await bench.engine.read_folder(IMAGE, "/etc/apt"))) as tar:
        assert "apt/apt.conf.d/90perry" in tar.getnames()


async def _inspected(bench: Bench) -> ContainerState:
    await bench.engine.ensure_container(bench.container("labelled"))
    found = await bench.engine.inspect(bench.container("labelled").name)
    assert found is not None
    return found


async def test_an_archive_is_unpacked_gzipped_or_not(bench: Bench) -> None:
    spec = bench.container("archive", "echo ready; sleep 0.2; cat /etc/one/file /etc/two/file; exec sleep 300")
    await bench.engine.ensure_container(spec)
    for name, mode in (("one", "w"), ("two", "w:gz")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
            entry = tarfile.TarInfo(f"{name}/file")
            entry.size = 3
            tar.addfile(entry, io.BytesIO(b"hi\n"))
        await bench.engine.put_archive(spec.name, "/etc", buffer.getvalue())
    with pytest.raises(EngineError):
        await bench.engine.put_archive("no-such-container", "/etc", buffer.getvalue())
    if isinstance(bench.engine, FakeEngine):
        files = bench.engine.by_name[spec.name].files
        assert files == {"/etc/one/file": b"hi\n", "/etc/two/file": b"hi\n"}
        return
    await bench.engine.start(spec.name)
    said = await bench.engine.exec(spec.name, ["cat", "/etc/one/file", "/etc/two/file"])
    assert said.stdout == b"hi\nhi\n"
