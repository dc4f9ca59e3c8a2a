"""The right worker in each workspace, on a Docker and workers in memory."""

import io
import stat
import tarfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from anyio.abc import TaskGroup

from controlplane.errors import EngineUnavailable, NotReady, StepFailed, TookTooLong, WorkerUnavailable
from controlplane.ports import ContainerSpec, ContainerState, ExecOutput
from controlplane.workers import service as services
from controlplane.workers.delivery import FOLDER, WORKER_LABEL, Delivery, under
from controlplane.workers.secrets import WorkerSecrets
from controlplane.workers.service import WorkerService
from protocol.version import VERSION
from protocol.worker import SECRET_FILE
from protocol.workspaces import WorkerState, WorkspaceStatus
from tests.fakes.engine import FakeContainer, FakeEngine
from tests.fakes.worker import FakeWorker, FakeWorkers
from tests.fakes.workspaces import workspace
from tests.waiting import until

pytestmark = pytest.mark.anyio

IMAGE = "perry/worker:latest"


def folder_of(version: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(f"{version}/install")
        info.size, info.uid, info.mode = 2, 1000, 0o755
        tar.addfile(info, io.BytesIO(b"hi"))
        link = tarfile.TarInfo(f"{version}/link")
        link.type, link.linkname = tarfile.SYMTYPE, "install"
        tar.addfile(link)
    return buffer.getvalue()


class Versioned(FakeWorker):
    """One of a version."""

    def __init__(self, secret: str, version: str) -> None:
        super().__init__(secret)
        self.version = version

    def open(self, epoch: str | None, after: int | None) -> Any:
        link = super().open(epoch, after)
        link.hello = msgspec.structs.replace(link.hello, version=self.version)
        return link


class Case:
    """A workspace ``alpha``, whose worker comes up when one is installed. ``installed`` is what was run for that."""

    def __init__(self, tasks: TaskGroup, folder: Path) -> None:
        self.folder = folder
        self.engine = FakeEngine([IMAGE, "i", "bare"])
        self.engine.image_labels = {IMAGE: {WORKER_LABEL: VERSION}, "i": {WORKER_LABEL: VERSION}}
        self.engine.image_folders[IMAGE, f"/{FOLDER}/{VERSION}"] = folder_of(VERSION)
        self.engine.command = self.install
        self.installed: list[str] = []
        self.install_fails = False
        self.workers = FakeWorkers()
        self.changed: list[str] = []
        self.service = WorkerService(
            self.engine,
            workers=self.workers,
            secrets=WorkerSecrets(folder / "worker.key"),
            delivery=Delivery(self.engine, IMAGE, folder / "worker"),
            address=self.address,
            container=lambda name: name,
            changed=self.changed.append,
            keep_opencode=600.0,
        )
        self.service.fleet.run_in(tasks)

    async def address(self, name: str) -> str | None:
        return name

    async def install(self, container: FakeContainer, command: Sequence[str], stdin: bytes) -> ExecOutput:
        self.installed.append(command[-1])
        if self.install_fails:
            return ExecOutput(exit_code=1, stdout=b"", stderr=b"no\nspace")
        self.comes_up(command[-1].split("/")[-2])
        return ExecOutput(exit_code=0, stdout=b"", stderr=b"")

    def comes_up(self, version: str = VERSION) -> None:
        if (before := self.workers.workers.get("alpha")) is not None:
            before.hang_up()
        secret = WorkerSecrets(self.folder / "worker.key").of("alpha")
        self.workers.workers["alpha"] = Versioned(secret, version)

    async def container(self, image: str = "i") -> ContainerState:
        await self.engine.ensure_container(ContainerSpec(name="alpha", image=image, labels={}))
        await self.engine.start("alpha")
        found = await self.engine.inspect("alpha")
        assert found is not None
        return found

    async def attend(self, image: str = "i", enough: anyio.Event | None = None) -> str | None:
        return await self.service.attend("alpha", await self.container(image), "alpha", enough or anyio.Event())


@pytest.fixture
async def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    monkeypatch.setattr(services, "HELD_SECONDS", 0.01)
    for name in ("COMES_UP_SECONDS", "OTHER_COMES_UP_SECONDS", "NONE_COMES_UP_SECONDS"):
        monkeypatch.setattr(services, name, 0.3)
    async with anyio.create_task_group() as tasks:
        yield Case(tasks, tmp_path)
        tasks.cancel_scope.cancel()


async def test_the_right_one_is_heard_and_nothing_is_brought(case: Case) -> None:
    case.comes_up()
    assert await case.attend() is None
    assert case.installed == [] and case.changed == ["alpha"]
    shown = case.service.shown("alpha")
    assert shown is not None and (shown.state, shown.version, shown.outdated) == (WorkerState.CONNECTED, VERSION, None)


async def test_one_that_is_coming_up_is_not_waited_for_longer_than_the_rest_takes(case: Case) -> None:
    enough = anyio.Event()
    enough.set()
    assert await case.attend(enough=enough) == "It is coming up."
    assert case.installed == []
    shown = case.service.shown("alpha")
    assert shown is not None and shown.state is WorkerState.CONNECTING
    case.comes_up()
    await until(lambda: case.changed == ["alpha"])


async def test_one_is_left_alone_until_the_rest_of_the_start_is_done(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "HELD_SECONDS", 60.0)
    case.comes_up()
    enough = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(case.attend, "i", enough)
        await anyio.wait_all_tasks_blocked()
        assert case.service.shown("alpha") is None
        enough.set()
    await until(lambda: case.changed == ["alpha"])


async def test_one_is_not_left_alone_for_long(case: Case) -> None:
    case.comes_up()
    assert await case.attend(enough=anyio.Event()) is None
    assert case.changed == ["alpha"]


async def test_an_image_without_one_is_brought_one(case: Case) -> None:
    assert await case.attend("bare") is None
    assert case.installed == [f"/{FOLDER}/{VERSION}/install"]
    assert case.engine.by_name["alpha"].files[f"/{FOLDER}/{VERSION}/install"] == b"hi"
    # What was read of the image is kept, for the next.
    case.engine.image_folders.clear()
    await Delivery(case.engine, IMAGE, case.folder / "worker").deliver("alpha", VERSION)
    assert len(case.installed) == 2


async def test_what_was_brought_before_is_not_brought_again(case: Case) -> None:
    case.comes_up()
    assert await case.attend("bare") is None
    assert case.installed == []


async def test_one_that_never_comes_up_is_brought_anew_and_then_named(case: Case) -> None:
    case.engine.command = FakeEngine().command
    with pytest.raises(TookTooLong, match=r"'alpha' runs, but its worker is not heard.*perry sync alpha"):
        await case.attend()
    assert f"/{FOLDER}/{VERSION}/install" in case.engine.by_name["alpha"].files


async def test_one_that_cannot_be_put_in_place_says_why(case: Case) -> None:
    case.install_fails = True
    with pytest.raises(StepFailed, match="could not be put in place: no space"):
        await case.attend("bare")


async def test_without_an_image_what_is_there_serves(case: Case) -> None:
    case.engine.images.remove(IMAGE)
    with pytest.raises(StepFailed, match="perry agent build"):
        await case.attend("bare")
    with pytest.raises(NotReady, match="perry agent build"):
        await case.service.renew("alpha", "alpha")
    await case.engine.remove_container("alpha")
    case.comes_up()
    await case.attend()
    shown = case.service.shown("alpha")
    assert shown is not None and shown.outdated is None


async def test_sync_renews_another_version_and_its_secret(case: Case) -> None:
    case.comes_up()
    await case.attend()
    assert await case.service.renew("alpha", "alpha") is None
    case.engine.image_labels[IMAGE] = {WORKER_LABEL: "2"}
    case.engine.image_folders[IMAGE, f"/{FOLDER}/2"] = folder_of("2")
    await case.service.learn_version()
    shown = case.service.shown("alpha")
    assert shown is not None and shown.outdated is True
    assert await case.service.renew("alpha", "alpha") == "2"
    shown = case.service.shown("alpha")
    assert shown is not None and (shown.version, shown.outdated) == ("2", None)
    assert case.installed == [f"/{FOLDER}/2/install"]
    assert len(case.engine.by_name["alpha"].files[SECRET_FILE]) == 43
    assert [each.name for each in (case.folder / "worker").iterdir()] == ["2.tar.gz"]


async def test_sync_just_after_a_start_dials_one_that_is_left_alone(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "CALM_SECONDS", 3600.0)
    enough = anyio.Event()
    enough.set()
    case.comes_up()
    assert await case.attend(enough=enough) == "It is coming up."
    assert await case.service.renew("alpha", "alpha") is None
    assert case.installed == [] and case.changed == ["alpha"]


async def test_images_that_are_built_meanwhile_are_noticed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "LOOK_SECONDS", 0.01)
    case.comes_up()
    await case.attend()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(case.service.run)
        case.engine.image_labels[IMAGE] = {WORKER_LABEL: "2"}
        await until(lambda: (shown := case.service.shown("alpha")) is not None and shown.outdated)
        assert case.changed == ["alpha", "alpha"]
        case.engine.up = False
        await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()


async def test_those_that_run_are_followed_and_no_others(case: Case) -> None:
    case.comes_up()
    running = workspace("alpha")
    case.service.workspace_changed(running)
    await until(lambda: case.changed == ["alpha"])
    case.service.workspace_changed(running)
    case.service.workspace_changed(workspace("alpha", status=WorkspaceStatus.STOPPED))
    with pytest.raises(WorkerUnavailable, match="perry start alpha"):
        case.service.link("alpha")
    assert case.service.shown("alpha") is None
    case.service.workspace_deleted("alpha")


async def test_a_docker_that_does_not_answer_is_a_sentence(case: Case) -> None:
    container = await case.container()
    case.engine.up = False
    with pytest.raises(EngineUnavailable):
        await case.service.attend("alpha", container, "alpha", anyio.Event())


def test_secrets_are_each_workspaces_own_and_outlive_all_but_their_key(tmp_path: Path) -> None:
    file = tmp_path / "worker.key"
    before = WorkerSecrets(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(before.of("alpha")) == 43 and before.of("alpha").replace("-", "").replace("_", "").isalnum()
    assert before.of("alpha") != before.of("beta")
    assert WorkerSecrets(file).of("alpha") == before.of("alpha")
    file.unlink()
    assert WorkerSecrets(file).of("alpha") != before.of("alpha")
    file.chmod(0o644)
    with pytest.raises(NotReady, match="chmod 600"):
        WorkerSecrets(file)


def test_a_folder_is_put_under_another_and_is_roots() -> None:
    with tarfile.open(fileobj=io.BytesIO(under(folder_of("1"), "opt/perry/worker"))) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == [
        "opt", "opt/perry", "opt/perry/worker", "opt/perry/worker/1/install", "opt/perry/worker/1/link"
    ]  # fmt: skip
    assert {member.uid for member in members.values()} == {0}
    assert members["opt"].isdir() and members["opt/perry/worker/1/link"].linkname == "install"
