"""The verbs of the port, on aiodocker."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiodocker
import aiohttp
import anyio

from controlplane.adapters.docker_engine import logs, processes, requests
from controlplane.adapters.docker_engine.errors import NOT_ANSWERING, translated
from controlplane.adapters.docker_engine.images import DockerImages
from controlplane.errors import EngineConflict, EngineError, EngineUnavailable
from controlplane.ports import (
    ContainerSpec,
    ContainerState,
    EngineEvent,
    EngineInfo,
    ExecOutput,
    File,
    LogEntry,
    NetworkSpec,
    NetworkState,
    VolumeState,
)

DEFAULT_SOCKET = "unix:///var/run/docker.sock"

LINE_LIMIT = 1 << 16
"""Characters that are kept of a line of output whose end has not come: who prints it need not mean well."""


class DockerEngine:
    """A Docker Engine: ``DOCKER_HOST`` or the current context decides which, else the default socket."""

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._docker: aiodocker.Docker | None = None

    @property
    def docker(self) -> aiodocker.Docker:
        """Made at first use, since it needs a running event loop."""
        if self._docker is None:
            try:
                self._docker = aiodocker.Docker(self._url)
            except AssertionError:
                # Its way of saying that no socket exists. One may appear later, when Docker is started.
                self._docker = aiodocker.Docker(DEFAULT_SOCKET)
        return self._docker

    @property
    def images(self) -> DockerImages:
        """The half of it that builds images."""
        return DockerImages(self.docker)

    async def close(self) -> None:
        if self._docker is not None:
            await self._docker.close()
            self._docker = None

    async def info(self) -> EngineInfo:
        with translated("answer"):
            info = await self.docker.system.info()
        return EngineInfo(
            version=info["ServerVersion"],
            cpus=info["NCPU"],
            memory=info["MemTotal"],
        )

    async def image_id(self, image: str) -> str | None:
        with translated(f"look at image {image}"):
            shown = await _unless_missing(self.docker.images.inspect(image))
        return None if shown is None else str(shown["Id"])

    async def labels_of(self, image: str) -> Mapping[str, str] | None:
        with translated(f"look at image {image}"):
            shown = await _unless_missing(self.docker.images.inspect(image))
        return None if shown is None else shown["Config"].get("Labels") or {}

    async def read_folder(self, image: str, path: str) -> bytes:
        # Files can only be had of a container; it never runs.
        with translated(f"read {path} of image {image}"):
            container = await self.docker.containers.create({"Image": image, "Cmd": ["none"]})
            try:
                async with self.docker._query(f"containers/{container.id}/archive", params={"path": path}) as response:
                    return await response.read()
            finally:
                await container.delete(force=True)

    # --- networks and volumes

    async def ensure_network(self, spec: NetworkSpec) -> None:
        with translated(f"make network {spec.name}"):
            try:
                await self.docker.networks.create(requests.network_body(spec))
            except aiodocker.DockerError as exc:
                if exc.status != 409 or "already exists" not in exc.message:
                    raise

    async def remove_network(self, name: str) -> None:
        with translated(f"remove network {name}"):
            if (network := await _unless_missing(self.docker.networks.get(name))) is None:
                return
            for endpoint in (await network.show()).get("Containers") or {}:
                # An endpoint outlives its container when Docker was killed in between.
                await _unless_missing(network.disconnect({"Container": endpoint, "Force": True}))
            await _unless_missing(network.delete())

    async def networks(self, labels: Mapping[str, str]) -> list[NetworkState]:
        with translated("list networks"):
            listed = await self.docker.networks.list(filters={"label": _filter(labels)})
        return [
            NetworkState(
                name=network["Name"],
                subnet=_ipam(network, "Subnet"),
                gateway=_ipam(network, "Gateway"),
                labels=network.get("Labels") or {},
            )
            for network in listed
        ]

    async def subnets_in_use(self) -> list[str]:
        with translated("list networks"):
            listed = await self.docker.networks.list()
        return [
            config["Subnet"]
            for network in listed
            for config in (network.get("IPAM") or {}).get("Config") or []
            if config.get("Subnet")
        ]

    async def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None:
        with translated(f"make volume {name}"):
            await self.docker.volumes.create({"Name": name, "Labels": dict(labels)})

    async def remove_volume(self, name: str) -> None:
        with translated(f"remove volume {name}"):
            await _unless_missing(aiodocker.volumes.DockerVolume(self.docker, name).delete(force=True))

    async def volumes(self, labels: Mapping[str, str]) -> list[VolumeState]:
        with translated("list volumes"):
            listed = await self.docker.volumes.list(filters={"label": _filter(labels)})
        return [VolumeState(name=v["Name"], labels=v.get("Labels") or {}) for v in listed["Volumes"] or []]

    # --- containers

    async def ensure_container(self, spec: ContainerSpec) -> str:
        body = requests.container_body(spec)
        with translated(f"create container {spec.name}"):
            for _ in range(2):
                try:
                    return (await self.docker.containers.create(body, name=spec.name)).id
                except aiodocker.DockerError as exc:
                    if exc.status != 409 or "already in use" not in exc.message:
                        raise
                present = await self.inspect(spec.name)
                if present is not None and present.labels.get("perry.spec") == spec.labels.get("perry.spec"):
                    return present.id
                if present is not None and present.labels.get("perry.instance") != spec.labels.get("perry.instance"):
                    raise EngineConflict(
                        f"A container that is not Perry's has the name {spec.name}; rename or remove it."
                    )
                await self.remove_container(spec.name)
        raise EngineError(f"Docker could not create container {spec.name}: something else keeps taking its name.")

    async def start(self, container: str) -> None:
        with translated(f"start container {container}"):
            await self.docker.containers.container(container).start()

    async def stop(self, container: str, seconds: int = 10) -> None:
        with translated(f"stop container {container}"):
            await _unless_missing(self.docker.containers.container(container).stop(t=seconds))

    async def signal(self, container: str, signal: str) -> None:
        with translated(f"signal container {container}"):
            await self.docker.containers.container(container).kill(signal=signal)

    async def pause(self, container: str) -> None:
        with translated(f"freeze container {container}"):
            try:
                await self.docker.containers.container(container).pause()
            except aiodocker.DockerError as exc:
                if "already paused" not in exc.message:
                    raise

    async def unpause(self, container: str) -> None:
        with translated(f"unfreeze container {container}"):
            try:
                await _unless_missing(self.docker.containers.container(container).unpause())
            except aiodocker.DockerError as exc:
                if "not paused" not in exc.message:
                    raise

    async def commit(self, container: str, image: str, labels: Mapping[str, str]) -> None:
        name, _, tag = image.rpartition(":")
        with translated(f"make an image of container {container}"):
            await self.docker.containers.container(container).commit(
                repository=name, tag=tag, config={"Labels": dict(labels)}, pause=False
            )

    async def remove_images(self, labels: Mapping[str, str]) -> None:
        with translated("remove images"):
            for image in await self.docker.images.list(filters={"label": _filter(labels)}):
                # By its names where it has some: by its id, what others were made from could not be removed.
                names = [tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"]
                for name in names or [image["Id"]]:
                    try:
                        await _unless_missing(self.docker.images.delete(name))
                    except aiodocker.DockerError as exc:
                        if exc.status != 409:
                            raise

    async def remove_container(self, container: str) -> None:
        with translated(f"remove container {container}"):
            try:
                await _unless_missing(self.docker.containers.container(container).delete(force=True, v=False))
            except aiodocker.DockerError as exc:
                # Somebody else's removal is under way: wait for its end.
                if exc.status != 409 or "in progress" not in exc.message:
                    raise
                await _unless_missing(self.docker.containers.container(container).wait(condition="removed"))

    async def inspect(self, container: str) -> ContainerState | None:
        with translated(f"look at container {container}"):
            shown = await _unless_missing(self.docker.containers.container(container).show())
        return None if shown is None else requests.container_state(shown)

    async def containers(self, labels: Mapping[str, str]) -> list[ContainerState]:
        with translated("list containers"):
            listed = await self.docker.containers.list(all=True, filters=json.dumps({"label": _filter(labels)}))
        return [requests.listed_container(container._container) for container in listed]

    async def send(self, container: str, data: bytes) -> None:
        with translated(f"say something to container {container}"):
            attached = self.docker.containers.container(container).attach(stdin=True, stdout=False, stderr=False)
            async with attached as stream:
                await stream.write_in(data)

    async def put_archive(self, container: str, folder: str, archive: bytes) -> None:
        with translated(f"put files into {container}"):
            await self.docker.containers.container(container).put_archive(folder, archive)

    async def put_files(self, container: str, files: Sequence[File]) -> None:
        with translated(f"put files into {container}"):
            await self.docker.containers.container(container).put_archive(*requests.archive(files))

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
        taken: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        truncated = False
        code = -1
        async for stream, data in self._exec(container, command, user=user, cwd=cwd, env=env, stdin=stdin):
            if stream == "exit":
                code = int(data)
                continue
            room = limit - len(taken[stream])
            truncated = truncated or len(data) > room
            taken[stream] += data[:room]
        return ExecOutput(
            exit_code=code, stdout=bytes(taken["stdout"]), stderr=bytes(taken["stderr"]), truncated=truncated
        )

    def exec_stream(
        self, container: str, command: Sequence[str], *, user: str = "root", cwd: str | None = None
    ) -> AsyncIterator[tuple[str, bytes]]:
        return self._exec(container, command, user=user, cwd=cwd, env=None, stdin=None)

    async def _exec(
        self,
        container: str,
        command: Sequence[str],
        *,
        user: str,
        cwd: str | None,
        env: Mapping[str, str] | None,
        stdin: AsyncIterator[bytes] | None,
    ) -> AsyncIterator[tuple[str, bytes]]:
        with translated(f"run {command[0]} in {container}"):
            run = await self.docker.containers.container(container).exec(
                list(command),
                stdin=stdin is not None,
                user=user,
                workdir=cwd,
                environment=dict(env) if env else None,
            )
            async with run.start(detach=False) as stream:
                feeding = asyncio.create_task(_feed(stream, stdin)) if stdin is not None else None
                try:
                    while (message := await stream.read_out()) is not None:
                        yield ("stdout" if message.stream == 1 else "stderr"), message.data
                finally:
                    if feeding is not None:
                        feeding.cancel()
                        await asyncio.wait([feeding])
            if feeding is not None and not feeding.cancelled():
                # A command may end without having read all of its input.
                with contextlib.suppress(ConnectionError):
                    feeding.result()
            code = (await run.inspect())["ExitCode"]
        yield "exit", str(-1 if code is None else code).encode()

    def process(
        self,
        container: str,
        command: Sequence[str],
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        tty: bool = False,
    ) -> contextlib.AbstractAsyncContextManager[processes.DockerProcess]:
        return processes.started(self.docker, container, command, user=user, env=env, tty=tty)

    async def run_once(self, spec: ContainerSpec, *, seconds: float = 30) -> ExecOutput:
        await self.remove_container(spec.name)
        container = await self.ensure_container(spec)
        try:
            with anyio.fail_after(seconds):
                await self.start(container)
                with translated(f"wait for container {spec.name}"):
                    code = (await self.docker.containers.container(container).wait())["StatusCode"]
            entries = await self.logs(container, tail=200)
        except TimeoutError as exc:
            raise EngineError(f"Container {spec.name} did not end within {seconds:g} s.") from exc
        finally:
            with anyio.CancelScope(shield=True):
                await self.remove_container(container)
        text = {
            stream: "".join(entry.text + "\n" for entry in entries if entry.stream == stream).encode()
            for stream in ("stdout", "stderr")
        }
        return ExecOutput(exit_code=code, stdout=text["stdout"], stderr=text["stderr"])

    # --- what they say

    async def logs(self, container: str, *, tail: int, since: str | None = None) -> list[LogEntry]:
        entries: list[LogEntry] = []
        with translated(f"read the logs of {container}"):
            for stream in ("stdout", "stderr"):
                options: dict[str, Any] = {stream: True, "timestamps": True, "tail": tail}
                if since is not None:
                    options["since"] = logs.unix(since)
                pieces = await _unless_missing(self.docker.containers.container(container).log(**options))
                for line in "".join(pieces or []).splitlines():
                    at, _, text = line.partition(" ")
                    entries.append(LogEntry(at=at, stream=stream, text=text))
        entries.sort(key=lambda entry: entry.at)
        return [entry for entry in entries if since is None or entry.at > since][-tail:]

    def follow_logs(self, container: str, *, since: str | None = None) -> AsyncIterator[LogEntry]:
        return logs.follow(self.docker, container, since=since)

    async def follow_stdout(self, container: str) -> AsyncIterator[str]:
        with translated(f"follow the output of {container}"):
            handle = self.docker.containers.container(container)
            shown = await handle.show()
            rest = ""
            # A container prints before Docker notes that it has started, so the end of its run before is the border.
            since = logs.unix(shown["State"]["FinishedAt"])
            async for piece in handle.log(stdout=True, follow=True, since=since):
                *lines, rest = (rest + piece).split("\n")
                for line in lines:
                    yield line
                if len(rest) > LINE_LIMIT:
                    rest = rest[:LINE_LIMIT]

    async def events(self, labels: Mapping[str, str]) -> AsyncIterator[EngineEvent]:
        subscriber = self.docker.events.subscribe(filters=json.dumps({"type": ["container"], "label": _filter(labels)}))
        try:
            with translated("send its events"):
                while (event := await subscriber.get()) is not None:
                    attributes = event["Actor"]["Attributes"]
                    yield EngineEvent(
                        kind=event["Type"],
                        action=event["Action"],
                        name=attributes.get("name", ""),
                        labels=attributes,
                    )
            raise EngineUnavailable(NOT_ANSWERING)
        finally:
            with anyio.CancelScope(shield=True):
                await self._stop_events()

    async def _stop_events(self) -> None:
        try:
            await self.docker.events.stop()
        except (aiodocker.DockerError, aiohttp.ClientError, OSError):
            # The task that reads them died of Docker going away, which has been said already.
            self.docker.events.task = None


async def _feed(stream: Any, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        await stream.write_in(chunk)
    await stream._init()
    stream._resp.connection.transport.write_eof()


async def _unless_missing(call: Any) -> Any:
    """The call's result, None where Docker says that there is no such object."""
    try:
        return await call
    except aiodocker.DockerError as exc:
        if exc.status == 404:
            return None
        raise


def _filter(labels: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" if value else name for name, value in labels.items()]


def _ipam(network: Mapping[str, Any], key: str) -> str | None:
    configs = (network.get("IPAM") or {}).get("Config") or []
    return next((config[key] for config in configs if config.get(key)), None)
