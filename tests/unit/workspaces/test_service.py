"""Starting, stopping, deleting, on fakes."""

from pathlib import Path

import anyio
import msgspec
import pytest

from controlplane.errors import (
    Conflict,
    EngineOutOfSpace,
    EngineUnavailable,
    ImageMissing,
    InvalidInput,
    NotFound,
    NotReady,
    OutOfSpace,
    StepFailed,
)
from controlplane.ports import ContainerSpec, EngineInfo, NetworkSpec
from controlplane.workspaces.environment import in_environment
from protocol.workspaces import (
    DeleteWorkspace,
    ExecCommand,
    StartupState,
    StartWorkspace,
    StepStatus,
    TailnetState,
    UnsavedWork,
    WorkspaceStatus,
)
from tests.unit.workspaces.conftest import Agent

pytestmark = pytest.mark.anyio


async def test_a_start_makes_a_workspace_that_is_on_the_tailnet(agent: Agent) -> None:
    workspace = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert workspace.status is WorkspaceStatus.RUNNING
    assert workspace.tailnet.status is TailnetState.ONLINE
    assert workspace.ssh_host_keys == ["ssh-ed25519 AAAAhost"]
    assert workspace.startup is not None and workspace.startup.state is StartupState.SUCCEEDED
    assert {step.status for step in workspace.startup.steps} == {StepStatus.DONE, StepStatus.SKIPPED}
    assert agent.engine.by_name.keys() == {"workspace-alpha", "workspace-alpha.net", "workspace-alpha.tailnet"}
    assert await agent.tailnet.unused_keys() == []


async def test_a_machine_that_was_given_more_cpus_is_asked_again(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))

    async def more() -> EngineInfo:
        return EngineInfo(version="fake", cpus=16, memory=8 << 30)

    monkeypatch.setattr(agent.engine, "info", more)
    assert (await agent.workspaces.start(StartWorkspace(name="beta", cpus=12))).status is WorkspaceStatus.RUNNING
    with pytest.raises(InvalidInput, match="has 16 CPUs"):
        await agent.workspaces.start(StartWorkspace(name="gamma", cpus=17))


async def test_nobody_hears_of_a_start_that_it_is_stopped(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    heard = [each.status for each in agent.heard.changed]
    assert heard[-1] is WorkspaceStatus.RUNNING
    assert set(heard) == {WorkspaceStatus.CREATING, WorkspaceStatus.RUNNING}


async def test_stops_restarts_and_deletions_tell_their_steps(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))

    def told() -> list[tuple[str, list[str]]]:
        heard = [each.work for each in agent.heard.changed if each.work is not None]
        agent.heard.changed.clear()
        return [(work.kind, [step.status.value for step in work.steps]) for work in heard]

    assert told() == []
    await agent.workspaces.restart("alpha")
    assert told() == [("restart", ["running"]), ("restart", ["done"])]
    await agent.workspaces.stop("alpha")
    assert told()[0] == ("stop", ["running"])
    assert (await agent.workspaces.get("alpha")).work is None
    await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
    last = agent.heard.changed[-1]
    assert last.deleting is True
    assert told() == [
        ("delete", ["running", "pending"]),
        ("delete", ["done", "pending"]),
        ("delete", ["done", "running"]),
        ("delete", ["done", "done"]),
    ]
    assert agent.heard.deleted == ["alpha"]


async def test_a_step_that_fails_says_why(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    agent.heard.changed.clear()
    agent.engine.go_down()
    with pytest.raises(EngineUnavailable):
        await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
    (failed,) = [
        each.work.steps[0]
        for each in agent.heard.changed
        if each.work is not None and each.work.steps[0].status is StepStatus.FAILED
    ]
    assert failed.detail is not None and "does not answer" in failed.detail
    assert agent.heard.changed[-1].work is None and agent.heard.changed[-1].deleting is True


async def test_starting_what_runs_succeeds_and_changes_nothing(agent: Agent) -> None:
    first = await agent.workspaces.start(StartWorkspace(name="alpha"))
    second = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert second.container_id == first.container_id
    assert len(await agent.tailnet.nodes()) == 1


async def test_two_starts_of_one_name_at_once_are_one(agent: Agent) -> None:
    results: list[str | None] = []

    async def start() -> None:
        results.append((await agent.workspaces.start(StartWorkspace(name="alpha"))).container_id)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        tasks.start_soon(start)
    assert len(results) == 2 and results[0] == results[1]
    assert len(agent.engine.by_name) == 3


async def test_create_refuses_what_exists(agent: Agent) -> None:
    await agent.workspaces.create(StartWorkspace(name="alpha"))
    with pytest.raises(Conflict):
        await agent.workspaces.create(StartWorkspace(name="alpha"))


async def test_a_client_that_goes_away_changes_nothing(agent: Agent) -> None:
    with anyio.move_on_after(0):
        await agent.workspaces.start(StartWorkspace(name="alpha", wait=False))
        await anyio.sleep(1)
    job = agent.jobs.get("alpha")
    if job is not None:
        await job.done.wait()
    assert [w.status for w in await agent.workspaces.list()] in ([], [WorkspaceStatus.RUNNING])


async def test_a_failed_clone_is_a_failed_step_of_a_workspace_that_runs(agent: Agent) -> None:
    agent.pods.exit_codes["git clone"] = 128
    with pytest.raises(StepFailed) as caught:
        await agent.workspaces.start(StartWorkspace(name="alpha", clone="https://example.org/none"))
    assert "no such repository" in caught.value.message
    workspace = await agent.workspaces.get("alpha")
    assert workspace.status is WorkspaceStatus.RUNNING and workspace.tailnet.status is TailnetState.ONLINE
    agent.pods.exit_codes["git clone"] = 0
    again = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert again.startup is not None and again.startup.state is StartupState.SUCCEEDED
    clones = [command for command in agent.pods.commands if "clone" in command]
    assert len(clones) == 2 and "https://example.org/none" in clones[1]
    assert list(clones[1][:4]) == in_environment(), "with the person's variables, which may name a proxy"


async def test_an_upload_is_needed_until_the_clone_is_in_its_place(agent: Agent, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(b"bundle")
    agent.uploads.files["0" * 16] = bundle
    wanted = StartWorkspace(name="alpha", clone=f"upload:{'0' * 16}")
    agent.pods.exit_codes["mv"] = 1
    with pytest.raises(StepFailed):
        await agent.workspaces.start(wanted)
    agent.pods.exit_codes["mv"] = 0
    assert (await agent.workspaces.start(wanted)).status is WorkspaceStatus.RUNNING
    assert agent.uploads.files == {}


async def test_an_upload_that_is_gone_says_how_to_send_it_again(agent: Agent) -> None:
    """As a day later, in a workspace of a batch that waited so long."""
    with pytest.raises(StepFailed, match="run `perry start`, or `perry dispatch` of a task or batch, again with --cl"):
        await agent.workspaces.start(StartWorkspace(name="alpha", clone=f"upload:{'0' * 16}"))


async def test_a_clone_that_keeps_failing_can_be_taken_back(agent: Agent) -> None:
    agent.pods.exit_codes["git clone"] = 128
    with pytest.raises(StepFailed):
        await agent.workspaces.start(StartWorkspace(name="alpha", clone="https://example.org/none", branch="b"))
    after = await agent.workspaces.start(StartWorkspace(name="alpha", no_clone=True))
    assert (after.repo, after.branch, after.error) == (None, None, None)
    again = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert again.startup is not None and again.startup.state is StartupState.SUCCEEDED
    assert len([command for command in agent.pods.commands if "clone" in command]) == 1


async def test_a_clone_that_came_is_not_taken_back(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha", clone="https://example.org/a"))
    after = await agent.workspaces.start(StartWorkspace(name="alpha", no_clone=True))
    assert after.repo == "https://example.org/a"


async def test_a_repository_comes_once(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha", clone="https://example.org/a"))
    await agent.workspaces.stop("alpha")
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert len([command for command in agent.pods.commands if "clone" in command]) == 1


async def test_a_start_that_has_cloned_is_joined_by_who_wants_the_same(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts, goes_on = anyio.Event(), anyio.Event()

    async def prepare(container: str, name: str, progress: object) -> bool:
        scripts.set()
        await goes_on.wait()
        return False

    monkeypatch.setattr(agent.provisions, "prepare", prepare)
    wanted = StartWorkspace(name="alpha", clone="https://example.org/a", wait=False)
    await agent.workspaces.start(wanted)
    with anyio.fail_after(20):
        await scripts.wait()
    await agent.workspaces.start(wanted)
    with pytest.raises(Conflict, match="other options"):
        await agent.workspaces.start(StartWorkspace(name="alpha", clone="https://example.org/b", wait=False))
    goes_on.set()
    joined = await agent.workspaces.start(msgspec.structs.replace(wanted, wait=True))
    assert joined.startup is not None and joined.startup.state is StartupState.SUCCEEDED
    assert len([command for command in agent.pods.commands if "clone" in command]) == 1


async def test_without_its_coordinator_a_workspace_runs_and_says_why(agent: Agent) -> None:
    agent.tailnet.away = True
    agent.pods.sidecar_joins = False
    starting = agent.workspaces.start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("controlplane.workspaces.startup.JOIN_SECONDS", 0.05)
        with pytest.raises(StepFailed) as caught:
            await starting(StartWorkspace(name="alpha"))
    assert "not on the tailnet" in caught.value.message
    assert (await agent.workspaces.get("alpha")).status is WorkspaceStatus.RUNNING


async def test_a_foreign_device_keeps_its_name(agent: Agent) -> None:
    agent.tailnet.joined("laptop", (await agent.tailnet.mint_device_key()).secret)
    with pytest.raises(Conflict):
        await agent.workspaces.start(StartWorkspace(name="laptop"))
    assert await agent.workspaces.list() == [] and not agent.engine.by_name


async def test_stop_keeps_home_and_start_brings_it_back(agent: Agent) -> None:
    before = await agent.workspaces.start(StartWorkspace(name="alpha"))
    stopped = await agent.workspaces.stop("alpha")
    assert stopped.status is WorkspaceStatus.STOPPED
    assert "workspace-alpha-home" in agent.engine.volume_labels
    after = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert after.status is WorkspaceStatus.RUNNING
    assert (after.container_id, after.ports, after.tailnet.ips) == (
        before.container_id,
        before.ports,
        before.tailnet.ips,
    )


async def test_restart_leaves_the_tailnet_alone(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    sidecar = agent.engine.by_name["workspace-alpha.tailnet"].started
    assert (await agent.workspaces.restart("alpha")).status is WorkspaceStatus.RUNNING
    assert agent.engine.by_name["workspace-alpha.tailnet"].started == sidecar


async def test_deleting_leaves_nothing(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
    assert not agent.engine.by_name and not agent.engine.volume_labels and not agent.engine.network_specs
    assert await agent.tailnet.nodes() == [] and agent.store.leftovers() == []
    assert agent.heard.deleted == ["alpha"]
    with pytest.raises(NotFound):
        await agent.workspaces.delete(DeleteWorkspace(name="alpha"))


@pytest.mark.parametrize("keep", [True, False])
async def test_deleting_says_first_what_becomes_of_the_sessions(agent: Agent, keep: bool) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True, keep_sessions=keep))
    assert agent.sessions_kept == {"alpha": keep}


async def test_sessions_that_cannot_be_kept_keep_their_workspace(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    agent.sessions_kept = None
    with pytest.raises(OutOfSpace):
        await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True, keep_sessions=True))
    assert (await agent.workspaces.get("alpha")).status is WorkspaceStatus.RUNNING
    # Who does not want them can still delete.
    await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
    assert await agent.workspaces.list() == []


async def test_deleting_while_the_coordinator_is_away_removes_the_node_later(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    agent.tailnet.away = True
    await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
    agent.tailnet.away = False
    assert len(await agent.tailnet.nodes()) == 1
    await agent.settle()
    assert await agent.tailnet.nodes() == []


async def test_work_is_not_lost_without_a_word(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.workspaces.stop("alpha")
    with pytest.raises(Conflict) as caught:
        await agent.workspaces.delete(DeleteWorkspace(name="alpha"))
    assert isinstance(caught.value.data, UnsavedWork) and caught.value.data.unknown


async def test_a_missing_image_is_said_before_anything_is_made(agent: Agent) -> None:
    with pytest.raises(ImageMissing):
        await agent.workspaces.start(StartWorkspace(name="alpha", image="nope"))
    assert await agent.workspaces.list() == []


async def test_other_options_need_a_stop_first(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    with pytest.raises(Conflict):
        await agent.workspaces.start(StartWorkspace(name="alpha", image="own:1"))
    await agent.workspaces.stop("alpha")
    assert (await agent.workspaces.start(StartWorkspace(name="alpha", image="own:1"))).image == "own:1"


async def test_what_could_never_be_started_is_not_kept(agent: Agent) -> None:
    before = await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.workspaces.stop("alpha")
    for wanted, why in (
        (StartWorkspace(name="alpha", image="nope"), ImageMissing),
        (StartWorkspace(name="alpha", image="--privileged"), InvalidInput),
        (StartWorkspace(name="alpha", image="a b"), InvalidInput),
        (StartWorkspace(name="alpha", cpus=1000), InvalidInput),
    ):
        with pytest.raises(why):
            await agent.workspaces.start(wanted)
    again = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert (again.status, again.image, again.limits) == (WorkspaceStatus.RUNNING, before.image, before.limits)


async def test_ports_that_are_busy_are_passed_over(agent: Agent) -> None:
    agent.machine.taken = {22001, 22002}
    assert (await agent.workspaces.start(StartWorkspace(name="alpha"))).ports.ssh == 22003


@pytest.mark.parametrize(
    "wanted",
    [
        StartWorkspace(name="perry"),
        StartWorkspace(name="a", clone="ext::x"),
        StartWorkspace(name="a", branch="b"),
        StartWorkspace(name="a", clone="https://example.org/a", no_clone=True),
    ],
)
async def test_bad_input_makes_nothing(agent: Agent, wanted: StartWorkspace) -> None:
    with pytest.raises(InvalidInput):
        await agent.workspaces.start(wanted)
    assert await agent.workspaces.list() == []


async def test_a_full_disk_is_one_sentence_and_with_room_again_it_goes_on(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = "Docker has no disk space left."

    async def no_room(spec: ContainerSpec) -> str:
        raise EngineOutOfSpace(full)

    with monkeypatch.context() as patch:
        patch.setattr(agent.engine, "ensure_container", no_room)
        with pytest.raises(StepFailed, match=full):
            await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert (await agent.workspaces.get("alpha")).error == full
    await agent.settle()
    workspace = await agent.workspaces.get("alpha")
    assert (workspace.status, workspace.error) == (WorkspaceStatus.RUNNING, None)
    assert await agent.tailnet.unused_keys() == []


async def test_docker_away_is_one_sentence(agent: Agent) -> None:
    agent.engine.go_down()
    with pytest.raises(EngineUnavailable):
        await agent.workspaces.start(StartWorkspace(name="alpha"))


async def test_exec_needs_a_workspace_that_runs(agent: Agent) -> None:
    with pytest.raises(NotFound):
        await agent.workspaces.exec(ExecCommand(name="alpha", command=["true"]))
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert (await agent.workspaces.exec(ExecCommand(name="alpha", command=["true"]))).exit_code == 0
    await agent.workspaces.stop("alpha")
    with pytest.raises(NotReady):
        await agent.workspaces.exec(ExecCommand(name="alpha", command=["true"]))


async def test_a_port_that_is_taken_in_the_meantime_is_exchanged_for_another(agent: Agent) -> None:
    agent.engine.taken_ports = {22001}
    workspace = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert workspace.ports.ssh == 22002 and workspace.status is WorkspaceStatus.RUNNING


async def test_a_workspace_that_people_know_keeps_its_port_and_says_who_has_it(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.workspaces.stop("alpha")
    agent.engine.taken_ports = {22001}
    with pytest.raises(StepFailed) as caught:
        await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert "port is taken" in caught.value.message
    assert (await agent.workspaces.get("alpha")).ports.ssh == 22001


async def test_addresses_that_are_taken_in_the_meantime_are_exchanged_for_others(agent: Agent) -> None:
    made = agent.engine.subnets_in_use

    async def nothing_yet() -> list[str]:
        agent.engine.subnets_in_use = made  # type: ignore[method-assign]
        spec = NetworkSpec(name="theirs", subnet="10.111.0.0/24", interface="theirs", labels={})
        await agent.engine.ensure_network(spec)
        return []

    agent.engine.subnets_in_use = nothing_yet  # type: ignore[method-assign]
    workspace = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert workspace.status is WorkspaceStatus.RUNNING
    assert agent.engine.network_specs["workspace-alpha"].subnet == "10.111.1.0/28"


async def test_a_device_that_got_an_old_id_anew_is_not_deleted_with_the_workspace(agent: Agent) -> None:
    """A coordinator that lost its volume counts its nodes from 1 again."""
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    (node,) = await agent.tailnet.nodes()
    await agent.workspaces.stop("alpha")
    agent.tailnet.forget_everything()
    laptop = agent.tailnet.joined("laptop", (await agent.tailnet.mint_device_key()).secret, node_id=node.id)
    await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
    assert await agent.tailnet.nodes() == [laptop]
    assert agent.store.leftovers() == []
