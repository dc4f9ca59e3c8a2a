"""Copies of workspaces, on fakes: what is copied when, what is not, and what is left where it cannot be done."""

import anyio
import pytest

from controlplane.errors import (
    Conflict,
    EngineOutOfSpace,
    ImageMissing,
    InvalidInput,
    NotFound,
    NotReady,
    PerryError,
    StepFailed,
)
from controlplane.ports import ExecOutput
from controlplane.workspaces import copying
from protocol.workspaces import (
    CloneWorkspace,
    DeleteWorkspace,
    StartupState,
    StartWorkspace,
    WorkspaceStatus,
)
from tests.fakes.engine import FakeContainer
from tests.unit.workspaces.conftest import Agent
from tests.unit.workspaces.test_reconciler import Killed, _assert_nothing_is_left, _life

pytestmark = pytest.mark.anyio

SOURCE = "workspace-alpha"
COPY = CloneWorkspace(name="alpha", new="beta")


@pytest.fixture
async def alpha(agent: Agent) -> Agent:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    return agent


async def test_a_copy_is_a_workspace_of_its_own(alpha: Agent) -> None:
    copy = await alpha.workspaces.clone(COPY)
    source = await alpha.workspaces.get("alpha")
    assert copy.status is source.status is WorkspaceStatus.RUNNING
    assert copy.image == "workspace-beta:clone" and (copy.docker, copy.limits) == (source.docker, source.limits)
    assert copy.ports.ssh != source.ports.ssh and copy.tailnet.ips != source.tailnet.ips
    assert {"workspace-beta-home", "workspace-beta-docker", "workspace-beta-etc"} <= alpha.engine.volume_labels.keys()
    assert "workspace-beta.copier" not in alpha.engine.by_name
    assert alpha.engine.by_name["workspace-beta"].spec.labels["perry.workspace"] == "beta"


async def test_it_runs_while_it_is_copied_and_is_frozen_for_the_last_pass(alpha: Agent) -> None:
    passes: list[bool] = []

    async def look(_: FakeContainer, word: str) -> None:
        if word == "rsync":
            passes.append(alpha.engine.by_name[SOURCE].paused)

    alpha.pods.on_command = look
    alpha.pods.says["rsync"] = b"Total transferred file size: 90000000\n"
    await alpha.workspaces.clone(COPY)
    assert passes == [False, False, False, True]
    assert not alpha.engine.by_name[SOURCE].paused
    passes.clear()
    alpha.pods.says["rsync"] = b"Total transferred file size: 9000\n"
    await alpha.workspaces.clone(CloneWorkspace(name="alpha", new="gamma"))
    assert passes == [False, True]


async def test_a_stopped_one_is_copied_and_stays_stopped(alpha: Agent) -> None:
    await alpha.workspaces.stop("alpha")
    assert (await alpha.workspaces.clone(COPY)).status is WorkspaceStatus.RUNNING
    assert (await alpha.workspaces.get("alpha")).status is WorkspaceStatus.STOPPED


async def test_its_steps_are_told(alpha: Agent) -> None:
    alpha.heard.changed.clear()
    alpha.pods.says["rsync"] = b"\r      1,500,000  50%  1MB/s\n".replace(b",", b"")
    await alpha.workspaces.clone(COPY)
    details = [
        step.detail
        for each in alpha.heard.changed
        if each.name == "beta" and each.startup is not None
        for step in each.startup.steps
        if step.id == "copy" and step.detail
    ]
    assert "1.5 MB of 3.0 MB" in details
    assert details[-1].startswith("~/alpha is ~/beta there") and "was frozen for" in details[-1]
    assert alpha.heard.changed[-1].startup is not None
    assert "copy" not in [step.id for step in (await alpha.workspaces.get("alpha")).startup.steps]  # type: ignore[union-attr]


async def test_a_folder_that_has_the_name_is_left_alone_and_said(alpha: Agent) -> None:
    alpha.pods.exit_codes["sh"] = copying.NAME_TAKEN
    copy = await alpha.workspaces.clone(COPY)
    assert copy.startup is not None
    (said,) = [step.detail for step in copy.startup.steps if step.id == "copy"]
    assert said is not None and "~/alpha keeps its name, since there is a ~/beta." in said


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (CloneWorkspace(name="none", new="beta"), NotFound),
        (CloneWorkspace(name="alpha", new="alpha"), Conflict),
        (CloneWorkspace(name="alpha", new="perry"), InvalidInput),
    ],
)
async def test_bad_input_makes_nothing(alpha: Agent, wanted: CloneWorkspace, error: type[PerryError]) -> None:
    with pytest.raises(error):
        await alpha.workspaces.clone(wanted)
    assert [each.name for each in await alpha.workspaces.list()] == ["alpha"]


async def test_what_never_ran_cannot_be_copied(agent: Agent) -> None:
    agent.machine.answers = lambda port: False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("controlplane.workspaces.startup.SSH_SECONDS", 0.05)
        with pytest.raises(StepFailed):
            await agent.workspaces.start(StartWorkspace(name="alpha"))
    with pytest.raises(NotReady):
        await agent.workspaces.clone(COPY)


async def test_an_image_that_is_gone_is_said_before_anything_is_made(alpha: Agent) -> None:
    alpha.engine.images.discard("perry/workspace-base:latest")
    with pytest.raises(ImageMissing):
        await alpha.workspaces.clone(COPY)
    assert [each.name for each in await alpha.workspaces.list()] == ["alpha"]


async def _only_alpha_is_left(agent: Agent) -> None:
    assert [each.name for each in await agent.workspaces.list()] == ["alpha"]
    assert not any(
        "beta" in name for name in (*agent.engine.by_name, *agent.engine.volume_labels, *agent.engine.images)
    )
    assert agent.engine.network_specs.keys() == {SOURCE} and not agent.engine.by_name[SOURCE].paused


async def test_without_room_nothing_is_copied_and_nothing_is_left(alpha: Agent) -> None:
    alpha.pods.says["df"] = b" Avail\n400000000\n"
    with pytest.raises(StepFailed) as caught:
        await alpha.workspaces.clone(COPY)
    assert "no room for a copy of 'alpha'" in caught.value.message and "400.0 MB are free" in caught.value.message
    assert not any("rsync" in command for command in alpha.pods.commands)
    await _only_alpha_is_left(alpha)
    failed = [each for each in alpha.heard.changed if each.name == "beta" and each.error]
    assert failed and failed[0].startup is not None and failed[0].startup.state is StartupState.FAILED
    assert alpha.heard.deleted == ["beta"]


async def test_a_disk_that_fills_up_in_the_middle_is_said_and_nothing_is_left(alpha: Agent) -> None:
    alpha.pods.exit_codes["rsync"] = 11
    alpha.pods.words = b"rsync: [receiver] write failed on /to/home/big: No space left on device (28)\n"
    with pytest.raises(StepFailed) as caught:
        await alpha.workspaces.clone(COPY)
    assert "No space was left while 'alpha' was copied" in caught.value.message
    await _only_alpha_is_left(alpha)


async def test_files_that_go_while_it_runs_are_no_failure_but_while_it_is_frozen_they_are(alpha: Agent) -> None:
    async def look(_: FakeContainer, word: str) -> None:
        if word == "rsync":
            alpha.pods.exit_codes["rsync"] = 0 if alpha.engine.by_name[SOURCE].paused else copying.VANISHED

    alpha.pods.on_command = look
    await alpha.workspaces.clone(COPY)

    async def never(_: FakeContainer, word: str) -> None:
        alpha.pods.exit_codes["rsync"] = copying.VANISHED

    alpha.pods.on_command = never
    with pytest.raises(StepFailed):
        await alpha.workspaces.clone(CloneWorkspace(name="alpha", new="gamma"))
    assert not alpha.engine.by_name[SOURCE].paused


async def test_a_stop_of_the_source_in_the_middle_is_waited_for_or_breaks_off_the_freeze_alone(alpha: Agent) -> None:
    reached, go_on = anyio.Event(), anyio.Event()

    async def look(_: FakeContainer, word: str) -> None:
        if word == "rsync" and alpha.engine.by_name[SOURCE].paused:
            reached.set()
            await go_on.wait()

    alpha.pods.on_command = look
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(alpha.workspaces.clone, COPY)
        with anyio.fail_after(5):
            await reached.wait()
            await alpha.workspaces.stop("alpha")
        go_on.set()
    assert (await alpha.workspaces.get("beta")).status is WorkspaceStatus.RUNNING
    assert (await alpha.workspaces.get("alpha")).status is WorkspaceStatus.STOPPED
    assert not alpha.engine.by_name[SOURCE].paused


async def test_what_changes_too_much_is_not_frozen_for_ever(alpha: Agent) -> None:
    async def hang(_: FakeContainer, word: str) -> None:
        if word == "rsync" and alpha.engine.by_name[SOURCE].paused:
            await anyio.sleep_forever()

    alpha.pods.on_command = hang
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("controlplane.workspaces.cloning.FROZEN_SECONDS", 0.05)
        with pytest.raises(StepFailed) as caught:
            await alpha.workspaces.clone(COPY)
    assert "`perry stop alpha`" in caught.value.message
    await _only_alpha_is_left(alpha)


async def test_the_source_is_not_deleted_under_its_copy(alpha: Agent) -> None:
    async def delete(_: FakeContainer, word: str) -> None:
        alpha.pods.on_command = None
        with pytest.raises(Conflict):
            await alpha.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
        refused.set()

    refused = anyio.Event()
    alpha.pods.on_command = delete
    await alpha.workspaces.clone(COPY)
    assert refused.is_set()
    await alpha.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
    assert [each.name for each in await alpha.workspaces.list()] == ["beta"]


async def test_a_copy_of_a_copy_outlives_what_it_was_made_of(alpha: Agent) -> None:
    await alpha.workspaces.clone(COPY)
    copy = await alpha.workspaces.clone(CloneWorkspace(name="beta", new="gamma"))
    assert copy.image == "workspace-gamma:clone"
    await alpha.workspaces.delete(DeleteWorkspace(name="beta", force=True))
    assert "workspace-beta:clone" not in alpha.engine.images and "workspace-gamma:clone" in alpha.engine.images


async def test_who_asks_twice_gets_one_copy(alpha: Agent) -> None:
    first = await alpha.workspaces.clone(CloneWorkspace(name="alpha", new="beta", wait=False))
    second = await alpha.workspaces.clone(COPY)
    assert first.name == second.name and second.status is WorkspaceStatus.RUNNING
    with pytest.raises(Conflict):
        await alpha.workspaces.clone(COPY)


@pytest.mark.parametrize("kill_at", range(1, 27))
async def test_killed_at_every_step_the_copy_is_whole_and_the_source_goes_on(lives: Agent, kill_at: int) -> None:
    await _life(lives, kill_at=None, doing="start")
    passed = await _cloned(lives, kill_at)
    await _life(lives, kill_at=None, doing="settle")
    await _life(lives, kill_at=None, doing="settle")
    assert not lives.engine.by_name[SOURCE].paused
    names = {record.name for record in lives.store.all()}
    if passed[0] == "reserved":
        assert names == {"alpha", "beta"}
        record = lives.store.get("beta")
        assert record is not None and record.request.source is None and record.error is None and not record.starting
        assert record.request.image == "workspace-beta:clone"
        assert len(lives.engine.by_name) == 6
    for name in names:
        lives.build()
        async with anyio.create_task_group() as tasks:
            lives.jobs.run_in(tasks)
            lives.sidecars.run_in(tasks)
            lives.checkpoint = lambda name: None
            await lives.workspaces.delete(DeleteWorkspace(name=name, force=True))
            tasks.cancel_scope.cancel()
    await _assert_nothing_is_left(lives)
    assert not any("clone" in image for image in lives.engine.images)


async def _cloned(agent: Agent, kill_at: int) -> list[str]:
    passed: list[str] = []

    def checkpoint(name: str) -> None:
        passed.append(name)
        if len(passed) >= kill_at:
            raise Killed

    agent.build()
    agent.checkpoint = checkpoint
    try:
        async with anyio.create_task_group() as tasks:
            agent.jobs.run_in(tasks)
            agent.sidecars.run_in(tasks)
            await agent.workspaces.clone(COPY)
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if group.split((Killed, PerryError))[1] is not None:
            raise
    except Killed:
        pass
    return passed


@pytest.mark.parametrize(
    ("used", "free", "fits"),
    [(1 << 30, 2 << 30, True), (1 << 30, (1 << 30) + (511 << 20), False), (0, 513 << 20, True)],
)
def test_some_room_is_left_to_the_others(used: int, free: int, fits: bool) -> None:
    there_is = copying.room(
        ExecOutput(exit_code=0, stdout=f"{used}\t/from/home\n".encode(), stderr=b""),
        ExecOutput(exit_code=0, stdout=f"  Avail\n{free}\n{free + 5}\n".encode(), stderr=b""),
    )
    assert there_is == copying.Room(used, free)
    if fits:
        copying.check_room("alpha", there_is)
    else:
        with pytest.raises(EngineOutOfSpace):
            copying.check_room("alpha", there_is)


def test_what_rsync_says_is_understood() -> None:
    assert copying.copied("\r   1200  3%  1kB/s\r   34000 99% 0:00:01") == 34000
    assert copying.copied("sending incremental file list") is None
    assert copying.moved("Number of files: 3\nTotal transferred file size: 12 bytes\n") == 12
