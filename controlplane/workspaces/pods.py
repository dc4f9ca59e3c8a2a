"""Verbs on one workspace's Docker objects. Each is safe to run twice, and after a crash in the middle of itself."""

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import anyio
import msgspec

from controlplane.errors import ContainerStuck, EngineConflict, EngineError, ImageMissing, first_error
from controlplane.ports import ContainerSpec, ContainerState, Engine, File, Machine, Role
from controlplane.settings import SshSettings
from controlplane.workspaces import spec as specs
from controlplane.workspaces.spec import Claim, Names, PodSpec
from controlplane.workspaces.state import Pod, in_dead_namespace, pod_of

PORTS_TRIED = 1000
KEPT_LABEL = "perry.kept"
BORDER_STANDS = '{"border":true}'
"""A sandbox's one line (sidecar/sandbox.go)."""

Checkpoint = Callable[[str], None]
"""Called with a name between any two steps that change something outside; tests end the process there."""


def no_checkpoint(_: str) -> None:
    """What runs outside of tests."""


class Pods:
    """The pods of one control plane."""

    def __init__(
        self,
        engine: Engine,
        machine: Machine,
        *,
        instance: str,
        prefix: str,
        known_hosts: Sequence[str] = (),
        files: Callable[[str], Sequence[File]] = lambda name: (),
        door_password: Callable[[str], str | None] = lambda name: None,
        checkpoint: Checkpoint = no_checkpoint,
    ) -> None:
        """``files`` is what a workspace's container is given besides keys and certificates, before each start;
        ``door_password`` is what its sidecar is handed, where that has a door to OpenCode."""
        self._engine = engine
        self._machine = machine
        self._instance = instance
        self._prefix = prefix
        self._known_hosts = known_hosts
        self._files = files
        self._door_password = door_password
        self._checkpoint = checkpoint

    def names(self, name: str) -> Names:
        return Names(self._prefix, name)

    async def all(self) -> dict[str, Pod]:
        """Every workspace of which a container exists, by name. Without start times."""
        by_name: dict[str, list[ContainerState]] = {}
        for container in await self._engine.containers(specs.instance_labels(self._instance)):
            if name := container.labels.get("perry.workspace"):
                by_name.setdefault(name, []).append(container)
        return {name: pod_of(containers) for name, containers in by_name.items()}

    async def inspect(self, name: str) -> Pod:
        """One pod, with start times."""
        names = self.names(name)
        found: dict[str, ContainerState | None] = {}

        async def look(container: str) -> None:
            found[container] = await self._engine.inspect(container)

        async with anyio.create_task_group() as tasks:
            for container in names.containers:
                tasks.start_soon(look, container)
        return Pod(sandbox=found[names.sandbox], tailnet=found[names.tailnet], workspace=found[names.workspace])

    async def labelled(self) -> list[Mapping[str, str]]:
        """The labels of every container, network and volume of ours that belongs to a workspace."""
        labels = specs.instance_labels(self._instance)
        found: list[Mapping[str, str]] = []

        async def containers() -> None:
            found.extend(container.labels for container in await self._engine.containers(labels))

        async def networks() -> None:
            found.extend(network.labels for network in await self._engine.networks(labels))

        async def volumes() -> None:
            found.extend(volume.labels for volume in await self._engine.volumes(labels))

        async with first_error(), anyio.create_task_group() as tasks:
            for look in (containers, networks, volumes):
                tasks.start_soon(look)
        return [each for each in found if "perry.workspace" in each]

    async def claims(self) -> dict[str, Claim | None]:
        """What Docker knows of workspaces, by name, for when state.db does not; None where only remains are left."""
        found: dict[str, Claim | None] = {}
        for labels in await self.labelled():
            name = labels["perry.workspace"]
            if found.get(name) is None:
                found[name] = _claim(labels.get("perry.claim", ""))
        return found

    # --- making

    async def check_images(self, images: Iterable[str]) -> None:
        """ImageMissing names the first that is not there."""
        for image in images:
            if await self._engine.image_id(image) is None:
                what = "build Perry's with `perry agent build`" if image.startswith("perry/") else "pull or build it"
                raise ImageMissing(f"The image {image} is not on this machine; {what}, then start again.")

    async def create(self, pod: PodSpec) -> ContainerState:
        """Network, volumes and the three containers, with their files; returns the sandbox, running.

        Docker starts the sandbox while it makes the two that join it: together that is most of a start's time.
        """
        async with first_error(), anyio.create_task_group() as tasks:
            tasks.start_soon(self._engine.ensure_network, pod.network)
            for volume, labels in pod.volumes.items():
                tasks.start_soon(self._engine.ensure_volume, volume, labels)
            # Docker asks for its network when it starts.
            sandbox = await self._engine.ensure_container(pod.sandbox)
            self._checkpoint("sandbox created")
        self._checkpoint("network and volumes made")
        failed: list[EngineError] = []

        async def start() -> None:
            # Kept until the others are made: a creation that is broken off goes on inside Docker.
            try:
                await self._start(pod.names.sandbox)
                self._checkpoint("sandbox started")
            except EngineError as exc:
                failed.append(exc)

        async with first_error(), anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            tasks.start_soon(self._ensure_joined, pod.tailnet, sandbox)
            tasks.start_soon(self._create_workspace, pod, sandbox)
        if failed:
            raise failed[0]
        self._checkpoint("containers created")
        return await self._present(sandbox)

    async def _ensure_joined(self, container: ContainerSpec, sandbox: str) -> None:
        """Make a container anew that joined the namespace of a sandbox that is no more: it can never start again."""
        present = await self._engine.inspect(container.name)
        if present is not None and present.network_of != sandbox:
            await self._engine.remove_container(container.name)
        await self._engine.ensure_container(container)

    async def _create_workspace(self, pod: PodSpec, sandbox: str) -> None:
        await self._engine.ensure_container(await self._on_what_was_installed(pod, sandbox))
        await self._engine.put_files(pod.names.workspace, self._workspace_files(pod.names.name))

    def _workspace_files(self, name: str) -> list[File]:
        keys = "".join(f"{key}\n" for key in self._machine.authorized_keys())
        hosts = "".join(f"{line}\n" for line in self._known_hosts)
        return [
            File(path=specs.AUTHORIZED_KEYS_FILE, content=keys.encode()),
            File(path=specs.KNOWN_HOSTS_FILE, content=hosts.encode()),
            *(
                File(path=f"{specs.CA_FOLDER}/{Path(file).name}", content=pem)
                for file, pem in self._machine.added_ca_certificates().items()
            ),
            *self._files(name),
        ]

    async def _on_what_was_installed(self, pod: PodSpec, sandbox: str) -> ContainerSpec:
        """The workspace's container as it is wanted. One that has to be made anew goes on from what the one before had.

        Its owner is root in there, and what is installed stands in no volume. Another image is begun with afresh.
        """
        wanted, kept = pod.workspace, pod.names.kept_image
        present = await self._engine.inspect(wanted.name)
        if present is None or present.labels.get("perry.instance") != self._instance:
            has_kept = await self._engine.image_id(kept) is not None
            return msgspec.structs.replace(wanted, image=kept) if has_kept else wanted
        if present.network_of == sandbox and present.labels.get("perry.spec") == wanted.labels.get("perry.spec"):
            return wanted
        is_of_same_image = _image(present.labels) == _image(wanted.labels)
        if is_of_same_image:
            await self._keep(pod.names.name)
        await self._engine.remove_container(wanted.name)
        if is_of_same_image:
            self._checkpoint("workspace to be made anew removed")
            return msgspec.structs.replace(wanted, image=kept)
        await self._engine.remove_images({**specs.workspace_labels(self._instance, pod.names.name), KEPT_LABEL: "1"})
        return wanted

    # --- running

    async def border_stands(self, name: str) -> bool:
        """Whether the sandbox, which runs, says that its border stands, as soon as it does; False where it ends."""
        lines = cast("AsyncGenerator[str]", self._engine.follow_stdout(self.names(name).sandbox))
        async with contextlib.aclosing(lines):
            async for line in lines:
                if line == BORDER_STANDS:
                    return True
        return False

    async def hand_over(self, name: str, auth_key: str | None) -> None:
        """Give a sidecar that runs what it is to have. It waits for that, where it has no place on the tailnet.

        By its standard input: Docker shows that to nobody, and takes 50 ms of CPU less for it than for a file.
        """
        handover = {"authKey": auth_key, "openCodePassword": self._door_password(name)}
        line = msgspec.json.encode({key: value for key, value in handover.items() if value is not None})
        await self._engine.send(self.names(name).tailnet, line + b"\n")
        if auth_key is not None:
            self._checkpoint("key delivered")

    async def start_joined(self, container: str, sandbox: ContainerState) -> ContainerState:
        """Start a container in the sandbox's namespace; one that is left in a dead one is started anew."""
        await self._start(container)
        present = await self._present(container)
        if not in_dead_namespace(present, sandbox):
            return present
        await self._engine.stop(container)
        await self._start(container)
        return await self._present(container)

    async def _start(self, container: str) -> None:
        """ContainerStuck where it can never start again. It is gone then, and is made anew the next time."""
        try:
            await self._engine.start(container)
        except ContainerStuck:
            await self._set_aside(container)
            raise

    async def _set_aside(self, container: str) -> None:
        """Remove a container; of a workspace's, what is installed in it stays."""
        present = await self._engine.inspect(container)
        if present is not None and present.labels.get("perry.role") == Role.WORKSPACE:
            await self._keep(present.labels["perry.workspace"])
        await self._engine.remove_container(container)

    async def _keep(self, name: str) -> None:
        labels = {**specs.workspace_labels(self._instance, name), KEPT_LABEL: "1", "perry.claim": "", "perry.spec": ""}
        names = self.names(name)
        await self._engine.stop(names.workspace)
        await self._engine.commit(names.workspace, names.kept_image, labels)
        self._checkpoint("installed things kept")

    async def _present(self, container: str) -> ContainerState:
        present = await self._engine.inspect(container)
        if present is None:
            raise EngineError(f"Container {container} is gone while it was being started; start again.")
        return present

    async def stop(self, name: str) -> None:
        """The workspace first, so that it can end its connections; the sandbox last."""
        names = self.names(name)
        await self._engine.stop(names.workspace)
        await self._engine.stop(names.tailnet, 3)
        await self._engine.stop(names.sandbox, 1)

    # --- removing

    async def remove_containers(self, name: str) -> None:
        await self._engine.remove_container(self.names(name).copier)
        for container in self.names(name).containers:
            await self._engine.remove_container(container)
            self._checkpoint(f"{Role(_role(container, self.names(name)))} removed")

    async def remove_rest(self, name: str) -> None:
        """The network, all volumes, and the image of a copy: what the user owned is gone after this."""
        names = self.names(name)
        await self._engine.remove_network(names.network)
        self._checkpoint("network removed")
        for volume in names.volumes:
            await self._engine.remove_volume(volume)
            self._checkpoint(f"volume {volume.removeprefix(names.workspace)} removed")
        await self._engine.remove_images(specs.workspace_labels(self._instance, name))


def _image(labels: Mapping[str, str]) -> str | None:
    """The image that was asked for when a container with these labels was made."""
    claim = _claim(labels.get("perry.claim", ""))
    return None if claim is None else claim.request.image


def _claim(text: str) -> Claim | None:
    try:
        return msgspec.json.decode(text, type=Claim)
    except msgspec.DecodeError:
        return None


def _role(container: str, names: Names) -> Role:
    roles = {names.workspace: Role.WORKSPACE, names.tailnet: Role.TAILNET, names.sandbox: Role.SANDBOX}
    return roles[container]


def ssh_ports(machine: Machine, settings: SshSettings) -> Iterator[int]:
    """Ports for a workspace's ssh that nobody has at the moment, from ``ssh.firstPort`` on."""
    for port in range(settings.first_port, min(settings.first_port + PORTS_TRIED, 65536)):
        if machine.port_is_free(settings.bind, port):
            yield port


def port_is_taken(error: EngineError) -> bool:
    """Whether a start failed since somebody else has the published port."""
    return isinstance(error, EngineConflict) and "port is taken" in error.message


def subnet_is_taken(error: EngineError) -> bool:
    """Whether a network could not be made since another has its addresses."""
    return isinstance(error, EngineConflict) and "overlap" in error.message
