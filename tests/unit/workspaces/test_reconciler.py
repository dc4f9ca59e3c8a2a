"""What exists and what was asked for, brought together; and a process that is killed anywhere."""

from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest

from controlplane.errors import PerryError, StepFailed
from controlplane.ports import ContainerState
from controlplane.workspaces.state import Pod
from protocol.workspaces import DeleteWorkspace, StartWorkspace, TailnetState, WorkspaceStatus
from tests.unit.workspaces.conftest import Agent

pytestmark = pytest.mark.anyio


async def test_what_ended_behind_our_back_is_started_again(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.engine.stop("workspace-alpha.net")
    await agent.settle()
    assert all(container.running for container in agent.engine.by_name.values())


async def test_what_was_listed_before_a_start_had_ended_is_not_started_again(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.workspaces.stop("alpha")
    listed, started = anyio.Event(), anyio.Event()
    all_pods = agent.workspaces.look

    async def slow_look(*, tell: bool = False) -> Mapping[str, Pod]:
        found = await all_pods(tell=tell)
        listed.set()
        await started.wait()
        return found

    monkeypatch.setattr(agent.workspaces, "look", slow_look)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.reconciler.once)
        await listed.wait()
        monkeypatch.setattr(agent.workspaces, "look", all_pods)
        after = await agent.workspaces.start(StartWorkspace(name="alpha"))
        started.set()
    await agent.settle()
    assert after.startup is not None
    record = agent.store.get("alpha")
    assert record is not None and record.startup is not None
    assert record.startup.attempt == after.startup.attempt


async def test_a_look_that_began_earlier_does_not_replace_a_later_one(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    containers = agent.engine.containers
    listed, stopped = anyio.Event(), anyio.Event()

    async def slow(labels: Mapping[str, str]) -> list[ContainerState]:
        monkeypatch.setattr(agent.engine, "containers", containers)
        found = await containers(labels)
        listed.set()
        await stopped.wait()
        return found

    monkeypatch.setattr(agent.engine, "containers", slow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.workspaces.look)
        await listed.wait()
        after = await agent.workspaces.start(StartWorkspace(name="alpha"))
        stopped.set()
    (seen,) = agent.workspaces.last_seen()
    assert seen.status is after.status is WorkspaceStatus.RUNNING


async def test_what_was_removed_behind_our_back_is_made_again(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.engine.remove_container("workspace-alpha.net")
    await agent.engine.remove_network("workspace-alpha")
    await agent.settle()
    assert (await agent.workspaces.get("alpha")).status is WorkspaceStatus.RUNNING
    assert "workspace-alpha" in agent.engine.network_specs


async def test_a_stopped_workspace_stays_stopped(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.workspaces.stop("alpha")
    await agent.settle()
    assert not any(container.running for container in agent.engine.by_name.values())


async def test_workspaces_come_back_from_labels(agent: Agent, tmp_path: Path) -> None:
    before = await agent.workspaces.start(StartWorkspace(name="alpha"))
    agent.database = tmp_path / "other.db"
    agent.build()
    async with anyio.create_task_group() as tasks:
        agent.jobs.run_in(tasks)
        agent.sidecars.run_in(tasks)
        await agent.settle()
        await agent.settle()
        after = await agent.workspaces.get("alpha")
        tasks.cancel_scope.cancel()
    assert after.status is WorkspaceStatus.RUNNING
    assert (after.ports, after.created, after.container_id) == (before.ports, before.created, before.container_id)


async def test_a_node_that_was_deleted_on_the_tailnet_joins_anew(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    (node,) = await agent.tailnet.nodes()
    await agent.tailnet.delete_node(node.id)
    await agent.engine.stop("workspace-alpha.tailnet")
    await agent.settle()
    assert len(await agent.tailnet.nodes()) == 1


async def test_one_whose_node_is_gone_and_that_cannot_join_is_tried_with_pauses(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.workspaces.startup.JOIN_SECONDS", 0.05)
    before = await agent.workspaces.start(StartWorkspace(name="alpha"))
    (node,) = await agent.tailnet.nodes()
    await agent.tailnet.delete_node(node.id)
    agent.pods.sidecar_joins = False
    assert before.startup is not None
    for _ in range(3):
        await agent.settle()
    after = (await agent.workspaces.get("alpha")).startup
    assert after is not None and after.attempt == before.startup.attempt + 1
    # When the pause is over it is tried again, and what has joined may be tried at once the next time.
    agent.pods.sidecar_joins = True
    agent.reconciler._retries["join alpha"] = (1, 0.0)
    await agent.settle()
    assert [node.name for node in await agent.tailnet.nodes()] == ["alpha"]
    await agent.settle()
    assert "join alpha" not in agent.reconciler._retries


async def test_a_new_one_of_a_name_has_failed_at_nothing_yet(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    agent.reconciler._retries.update({"alpha": (5, 1e12), "join alpha": (5, 1e12)})
    await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
    await agent.settle()
    assert not agent.reconciler._retries


async def test_one_that_got_no_key_at_its_start_joins_when_the_coordinator_is_back(agent: Agent) -> None:
    agent.tailnet.away = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("controlplane.workspaces.startup.JOIN_SECONDS", 0.05)
        with pytest.raises(StepFailed):
            await agent.workspaces.start(StartWorkspace(name="alpha"))
    agent.engine.by_name["workspace-alpha.tailnet"].say('{"border": true, "state": "needs-key", "hostname": "alpha"}')
    await agent.settle()
    assert (await agent.workspaces.get("alpha")).tailnet.status is TailnetState.FAILED
    assert agent.jobs.get("alpha") is None, "it is not started again while nobody could give it a key"
    agent.tailnet.away = False
    await agent.settle()
    assert [node.name for node in await agent.tailnet.nodes()] == ["alpha"]
    alpha = await agent.workspaces.get("alpha")
    assert (alpha.tailnet.status, alpha.error) == (TailnetState.ONLINE, None)


class Killed(BaseException):
    """The process ends here: nothing after it runs."""


async def _life(agent: Agent, *, kill_at: int | None, doing: str) -> list[str]:
    """One life of the control plane; the names of the checkpoints that it passed."""
    passed: list[str] = []

    def checkpoint(name: str) -> None:
        passed.append(name)
        if kill_at is not None and len(passed) >= kill_at:
            raise Killed

    agent.checkpoint = checkpoint
    agent.build()
    try:
        async with anyio.create_task_group() as tasks:
            agent.jobs.run_in(tasks)
            agent.sidecars.run_in(tasks)
            try:
                if doing == "start":
                    await agent.workspaces.start(StartWorkspace(name="alpha", clone="https://example.org/a"))
                elif doing == "delete":
                    await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
                else:
                    await agent.settle()
                    await agent.settle()
            except PerryError:
                pass
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if group.split(Killed)[1] is not None:
            raise
    except Killed:
        pass
    return passed


@pytest.mark.parametrize("kill_at", range(1, 15))
async def test_killed_at_every_step_of_creation_it_is_whole_or_gone(lives: Agent, kill_at: int) -> None:
    await _life(lives, kill_at=kill_at, doing="start")
    await _life(lives, kill_at=None, doing="settle")
    record = lives.store.get("alpha")
    assert record is not None and not record.starting and record.error is None
    assert len(lives.engine.by_name) == 3
    assert all(container.running for container in lives.engine.by_name.values())
    assert [node.name for node in await lives.tailnet.nodes()] == ["alpha"]
    assert await lives.tailnet.unused_keys() == []
    await _life(lives, kill_at=None, doing="delete")
    await _assert_nothing_is_left(lives)


@pytest.mark.parametrize("kill_at", range(1, 13))
async def test_killed_at_every_step_of_deletion_it_is_gone(lives: Agent, kill_at: int) -> None:
    await _life(lives, kill_at=None, doing="start")
    await _life(lives, kill_at=kill_at, doing="delete")
    await _life(lives, kill_at=None, doing="settle")
    await _assert_nothing_is_left(lives)


async def test_the_walks_above_cover_every_checkpoint(lives: Agent) -> None:
    assert len(await _life(lives, kill_at=None, doing="start")) <= 14
    assert len(await _life(lives, kill_at=None, doing="delete")) <= 12


async def _assert_nothing_is_left(agent: Agent) -> None:
    assert agent.store.all() == [] and agent.store.leftovers() == []
    assert not agent.engine.by_name and not agent.engine.volume_labels and not agent.engine.network_specs
    assert await agent.tailnet.nodes() == [] and await agent.tailnet.unused_keys() == []
