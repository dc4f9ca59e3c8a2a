"""Docker in memory, typed against the port and held to the real one by tests/contract/engine."""

import contextlib
import io
import ipaddress
import itertools
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import msgspec

from controlplane.errors import ContainerStuck, EngineConflict, EngineError, EngineUnavailable, ImageMissing
from controlplane.ports import (
    ContainerSpec,
    ContainerState,
    Engine,
    EngineEvent,
    EngineInfo,
    ExecOutput,
    File,
    LogEntry,
    NetworkSpec,
    NetworkState,
    VolumeState,
)
from tests.fakes.processes import FakeProcess, FakeProcesses

Command = Callable[["FakeContainer", Sequence[str], bytes], Awaitable[ExecOutput]]


class FakeContainer:
    """A container that runs nothing. What it would print to stdout is in ``lines``."""

    def __init__(
        self,
        identity: str,
        spec: ContainerSpec,
        network_of: str | None,
        created: datetime,
        *,
        image_labels: Mapping[str, str] | None = None,
    ) -> None:
        self.id = identity
        self.spec = spec
        self.network_of = network_of
        self.created = created
        self.address: str | None = None
        self._image_labels = image_labels or {}
        self.started: datetime | None = None
        self.running = False
        self.paused = False
        self.files: dict[str, bytes] = {}
        self.processes: list[FakeProcess] = []
        self.lines: list[str] = []
        self.printed = 0
        """How many lines its earlier runs printed."""
        self.news = anyio.Event()

    def say(self, line: str) -> None:
        """Print a line."""
        self.lines.append(line)
        self.tell()

    def tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    def state(self) -> ContainerState:
        return ContainerState(
            id=self.id,
            name=self.spec.name,
            image=self.spec.image,
            labels={**self._image_labels, **self.spec.labels},
            running=self.running,
            status=self._status(),
            created=self.created,
            started=self.started,
            address=self.address if self.running else None,
            network_of=self.network_of,
        )

    def _status(self) -> str:
        if self.running:
            return "paused" if self.paused else "running"
        return "exited" if self.started else "created"


async def succeed(_container: FakeContainer, _command: Sequence[str], _stdin: bytes) -> ExecOutput:
    """A command that prints nothing."""
    return ExecOutput(exit_code=0, stdout=b"", stderr=b"")


class FakeEngine:
    """An engine in memory. ``on_start`` is called with each container that starts; ``command`` answers every exec."""

    def __init__(self, images: Sequence[str] = ()) -> None:
        self.images = set(images)
        self.image_labels: dict[str, Mapping[str, str]] = {}
        """Of the images that were made of containers."""
        self.image_folders: dict[tuple[str, str], bytes] = {}
        """Tars, by image and path."""
        self.by_name: dict[str, FakeContainer] = {}
        self.network_specs: dict[str, NetworkSpec] = {}
        self.volume_labels: dict[str, Mapping[str, str]] = {}
        self.up = True
        self.taken_ports: set[int] = set()
        self.stuck: set[str] = set()
        """Ids of containers that never start again."""
        self.command: Command = succeed
        self.on_start: Callable[[FakeContainer], None] = lambda container: None
        self.on_signal: Callable[[FakeContainer], None] = lambda container: None
        self.on_send: Callable[[FakeContainer, bytes], None] = lambda container, data: None
        self.processes = FakeProcesses(Path(tempfile.gettempdir()))
        """What commands with streams (``process``) become: those run on this machine."""
        self._ids = itertools.count(1)
        self._clock = datetime.now(UTC)
        self._listeners: list[list[EngineEvent]] = []
        self._event = anyio.Event()

    # --- for tests

    def happen(self, action: str, container: FakeContainer) -> None:
        """Send an event to all who listen."""
        event = EngineEvent(kind="container", action=action, name=container.spec.name, labels=container.spec.labels)
        for listener in self._listeners:
            listener.append(event)
        self._event.set()
        self._event = anyio.Event()

    def go_down(self) -> None:
        """Docker stops answering, and what it ran has ended."""
        self.up = False
        for container in self.by_name.values():
            container.running = False
            container.tell()
        self._event.set()
        self._event = anyio.Event()

    # --- the port

    async def close(self) -> None:
        pass

    async def info(self) -> EngineInfo:
        self._check()
        return EngineInfo(version="fake", cpus=4, memory=8 << 30)

    async def image_id(self, image: str) -> str | None:
        self._check()
        return f"sha256:{image}" if image in self.images else None

    async def labels_of(self, image: str) -> Mapping[str, str] | None:
        self._check()
        return self.image_labels.get(image, {}) if image in self.images else None

    async def read_folder(self, image: str, path: str) -> bytes:
        self._check()
        if image not in self.images:
            raise ImageMissing(f"An image is missing ({image}); build Perry's with `perry agent build`.")
        if (image, path) not in self.image_folders:
            raise EngineError(f"Docker could not read {path} of image {image}: no such file or directory")
        return self.image_folders[image, path]

    async def ensure_network(self, spec: NetworkSpec) -> None:
        self._check()
        if spec.name in self.network_specs:
            return
        wanted = ipaddress.ip_network(spec.subnet)
        if any(wanted.overlaps(ipaddress.ip_network(other.subnet)) for other in self.network_specs.values()):
            raise EngineConflict(f"Docker could not make network {spec.name}, since its addresses overlap another's.")
        self.network_specs[spec.name] = spec

    async def remove_network(self, name: str) -> None:
        self._check()
        self.network_specs.pop(name, None)

    async def networks(self, labels: Mapping[str, str]) -> list[NetworkState]:
        self._check()
        return [
            NetworkState(name=spec.name, subnet=spec.subnet, gateway=None, labels=spec.labels)
            for spec in self.network_specs.values()
            if _matches(spec.labels, labels)
        ]

    async def subnets_in_use(self) -> list[str]:
        self._check()
        return [spec.subnet for spec in self.network_specs.values()]

    async def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None:
        self._check()
        self.volume_labels.setdefault(name, labels)

    async def remove_volume(self, name: str) -> None:
        self._check()
        if any(mount.volume == name for each in self.by_name.values() for mount in each.spec.volumes):
            raise EngineConflict(f"Docker could not remove volume {name}: it is in use.")
        self.volume_labels.pop(name, None)

    async def volumes(self, labels: Mapping[str, str]) -> list[VolumeState]:
        self._check()
        return [
            VolumeState(name=name, labels=present)
            for name, present in self.volume_labels.items()
            if _matches(present, labels)
        ]

    async def ensure_container(self, spec: ContainerSpec) -> str:
        self._check()
        if spec.image not in self.images:
            raise ImageMissing(f"An image is missing ({spec.image}); build Perry's with `perry agent build`.")
        present = self.by_name.get(spec.name)
        if present is not None:
            if present.spec.labels.get("perry.spec") == spec.labels.get("perry.spec"):
                return present.id
            if present.spec.labels.get("perry.instance") != spec.labels.get("perry.instance"):
                raise EngineConflict(f"A container that is not Perry's has the name {spec.name}.")
            await self.remove_container(spec.name)
        for folder in _folders(spec):
            if not folder.is_dir():
                raise EngineError(f"Docker could not create container {spec.name}: {folder} does not exist.")
        network_of = None if spec.network_of is None else self._get(spec.network_of).id
        container = FakeContainer(
            f"{next(self._ids):064x}",
            spec,
            network_of,
            self._now(),
            image_labels=self.image_labels.get(spec.image),
        )
        self.by_name[spec.name] = container
        for mount in spec.volumes:
            if not mount.volume.startswith("/"):
                self.volume_labels.setdefault(mount.volume, {})
        return container.id

    def _free_address(self, network: str | None) -> str | None:
        """The second of the network's addresses: each has one container here."""
        if network is None or network not in self.network_specs:
            return None
        return str(ipaddress.ip_network(self.network_specs[network].subnet)[2])

    async def start(self, container: str) -> None:
        self._check()
        found = self._get(container)
        if found.running:
            return
        if found.id in self.stuck:
            raise ContainerStuck(f"Docker could not start container {container}, since it still has a part of it")
        if any(port.host_port in self.taken_ports for port in found.spec.ports):
            raise EngineConflict(f"Docker could not start container {container}, since a port is taken: already in use")
        if found.network_of is not None:
            owner = next((each for each in self.by_name.values() if each.id == found.network_of), None)
            if owner is None or not owner.running:
                raise EngineError(f"Docker could not start container {container}: it cannot join that namespace.")
        if found.spec.network is not None and found.spec.network not in self.network_specs:
            raise EngineError(f"Docker could not start container {container}: network {found.spec.network} not found")
        found.address = self._free_address(found.spec.network)
        found.printed += len(found.lines)
        found.running, found.started, found.lines = True, self._now(), []
        self.happen("start", found)
        self.on_start(found)

    async def stop(self, container: str, seconds: int = 10) -> None:
        self._check()
        found = self._find(container)
        if found is not None and found.running:
            found.running = found.paused = False
            found.tell()
            for process in found.processes:
                self.processes.signal(process.child.pid, "KILL")
            self.happen("die", found)

    async def signal(self, container: str, signal: str) -> None:
        self._check()
        if not self._get(container).running:
            raise EngineConflict(f"Docker could not signal container {container}: it does not run.")
        self.on_signal(self._get(container))

    async def pause(self, container: str) -> None:
        self._check()
        if not self._get(container).running:
            raise EngineConflict(f"Docker could not freeze container {container}: it does not run.")
        self._get(container).paused = True

    async def unpause(self, container: str) -> None:
        self._check()
        if (found := self._find(container)) is not None:
            found.paused = False

    async def commit(self, container: str, image: str, labels: Mapping[str, str]) -> None:
        self._check()
        found = self._get(container)
        self.images.add(image)
        self.image_labels[image] = {**found.spec.labels, **labels}

    async def remove_images(self, labels: Mapping[str, str]) -> None:
        self._check()
        for image, present in list(self.image_labels.items()):
            used = any(each.spec.image == image for each in self.by_name.values())
            if _matches(present, labels) and not used:
                del self.image_labels[image]
                self.images.remove(image)

    async def remove_container(self, container: str) -> None:
        await self.stop(container)
        found = self._find(container)
        if found is not None:
            del self.by_name[found.spec.name]
            self.happen("destroy", found)

    async def inspect(self, container: str) -> ContainerState | None:
        self._check()
        found = self._find(container)
        return None if found is None else found.state()

    async def containers(self, labels: Mapping[str, str]) -> list[ContainerState]:
        self._check()
        return [
            msgspec.structs.replace(each.state(), started=None)
            for each in self.by_name.values()
            if _matches(each.spec.labels, labels)
        ]

    async def send(self, container: str, data: bytes) -> None:
        self._check()
        found = self._get(container)
        if not found.running:
            raise EngineConflict(f"Docker could not say something to container {container}: it does not run.")
        if found.spec.stdin:
            self.on_send(found, data)

    async def put_archive(self, container: str, folder: str, archive: bytes) -> None:
        self._check()
        files = self._get(container).files
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                if (content := tar.extractfile(member)) is not None:
                    files[f"{folder.rstrip('/')}/{member.name}"] = content.read()

    async def put_files(self, container: str, files: Sequence[File]) -> None:
        self._check()
        self._get(container).files.update({file.path: file.content for file in files})

    async def exec(
        self,
        container: str,
        command: Sequence[str],
        *,
        user: str = "root",
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: AsyncIterator[bytes] | None = None,
        limit: int = 1 << 20,
    ) -> ExecOutput:
        self._check()
        found = self._get(container)
        if not found.running or found.paused:
            raise EngineConflict(f"Docker could not run {command[0]} in {container}: it does not run.")
        if command[3:4] == ["perry-signal"]:
            code = self.processes.signal(int(command[5]), command[4])
            return ExecOutput(exit_code=code, stdout=b"", stderr=b"")
        given = b"".join([chunk async for chunk in stdin]) if stdin is not None else b""
        output = await self.command(found, command, given)
        return msgspec.structs.replace(output, stdout=output.stdout[:limit], stderr=output.stderr[:limit])

    async def exec_stream(
        self, container: str, command: Sequence[str], *, user: str = "root", cwd: str | None = None
    ) -> AsyncIterator[tuple[str, bytes]]:
        output = await self.exec(container, command, user=user, cwd=cwd)
        yield "stdout", output.stdout
        yield "stderr", output.stderr
        yield "exit", str(output.exit_code).encode()

    @contextlib.asynccontextmanager
    async def process(
        self,
        container: str,
        command: Sequence[str],
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        tty: bool = False,
    ) -> AsyncIterator[FakeProcess]:
        self._check()
        found = self._get(container)
        if not found.running:
            raise EngineConflict(f"Docker could not run {command[0]} in {container}: it does not run.")
        async with self.processes.started(command, env, tty=tty) as process:
            found.processes.append(process)
            yield process
            found.processes.remove(process)

    async def run_once(self, spec: ContainerSpec, *, seconds: float = 30) -> ExecOutput:
        container = await self.ensure_container(spec)
        await self.start(container)
        output = await self.exec(container, spec.command)
        await self.remove_container(container)
        return output

    async def logs(self, container: str, *, tail: int, since: str | None = None) -> list[LogEntry]:
        self._check()
        found = self._find(container)
        if found is None:
            return []
        times = itertools.count(found.printed + 1)
        entries = [LogEntry(at=_at(next(times)), stream="stdout", text=line) for line in found.lines]
        return [entry for entry in entries if since is None or entry.at > since][-tail:]

    async def follow_logs(self, container: str, *, since: str | None = None) -> AsyncIterator[LogEntry]:
        printed = self._get(container).printed
        async for line in self.follow_stdout(container):
            printed += 1
            if since is None or _at(printed) > since:
                yield LogEntry(at=_at(printed), stream="stdout", text=line)

    async def follow_stdout(self, container: str) -> AsyncIterator[str]:
        self._check()
        found = self._get(container)
        run, sent = found.started, 0
        while True:
            while sent < len(found.lines) and found.started == run:
                yield found.lines[sent]
                sent += 1
            if not found.running or found.started != run:
                return
            await found.news.wait()

    async def events(self, labels: Mapping[str, str]) -> AsyncIterator[EngineEvent]:
        self._check()
        queue: list[EngineEvent] = []
        self._listeners.append(queue)
        try:
            while self.up:
                while queue:
                    event = queue.pop(0)
                    if _matches(event.labels, labels):
                        yield event
                await self._event.wait()
            raise EngineUnavailable("Docker does not answer.")
        finally:
            self._listeners.remove(queue)

    # --- inside

    def _check(self) -> None:
        if not self.up:
            raise EngineUnavailable("Docker does not answer.")

    def _find(self, container: str) -> FakeContainer | None:
        by_id = {each.id: each for each in self.by_name.values()}
        return self.by_name.get(container) or by_id.get(container)

    def _get(self, container: str) -> FakeContainer:
        found = self._find(container)
        if found is None:
            raise EngineError(f"Docker could not find container {container}.")
        return found

    def _now(self) -> datetime:
        """Later each time, so that what started before what is always known."""
        self._clock += timedelta(milliseconds=1)
        return self._clock


def _folders(spec: ContainerSpec) -> list[Path]:
    """Of the machine, that it mounts."""
    return [Path(mount.volume) for mount in spec.volumes if mount.volume.startswith("/")]


def _at(line: int) -> str:
    """When the container printed a line: one a millisecond."""
    return f"2026-01-01T00:{line // 60_000:02}:{line // 1000 % 60:02}.{line % 1000:03}000000Z"


def _matches(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in wanted.items())


_typed: type[Engine] = FakeEngine
