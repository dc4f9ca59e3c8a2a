"""The state machine, as values."""

from datetime import UTC, datetime

import pytest

from controlplane.ports import ContainerState
from controlplane.workspaces import state
from controlplane.workspaces.state import Action, Desired, Pod, StepId
from protocol.workspaces import StartupState, StepStatus, WorkspaceStatus


def container(role: str, *, running: bool = True, started: int = 1, network_of: str | None = "s") -> ContainerState:
    return ContainerState(
        id="s" if role == "sandbox" else role,
        name=f"workspace-a.{role}",
        image="i",
        labels={"perry.role": role},
        running=running,
        status="running" if running else "exited",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        started=datetime(2026, 1, 1, 0, 0, started, tzinfo=UTC),
        network_of=None if role == "sandbox" else network_of,
    )


WHOLE = Pod(
    sandbox=container("sandbox"), tailnet=container("tailnet", started=2), workspace=container("workspace", started=3)
)


@pytest.mark.parametrize(
    ("desired", "pod", "action"),
    [
        (Desired.RUNNING, WHOLE, Action.NOTHING),
        (Desired.RUNNING, Pod(), Action.START),
        (Desired.RUNNING, Pod(sandbox=WHOLE.sandbox, tailnet=WHOLE.tailnet), Action.START),
        (Desired.STOPPED, WHOLE, Action.STOP),
        (Desired.STOPPED, Pod(), Action.NOTHING),
        (Desired.DELETED, Pod(), Action.DELETE),
        (Desired.DELETED, WHOLE, Action.DELETE),
    ],
)
def test_what_is_needed(desired: Desired, pod: Pod, action: Action) -> None:
    assert state.needed(desired, pod, None) is action


def test_a_start_that_was_interrupted_is_needed_again() -> None:
    assert state.needed(Desired.RUNNING, WHOLE, state.begun(None)) is Action.START


def test_what_is_left_in_a_namespace_that_is_gone_is_started_again() -> None:
    restarted = Pod(sandbox=container("sandbox", started=9), tailnet=WHOLE.tailnet, workspace=WHOLE.workspace)
    assert state.needed(Desired.RUNNING, restarted, None) is Action.START
    elsewhere = Pod(sandbox=WHOLE.sandbox, tailnet=container("tailnet", network_of="old"), workspace=WHOLE.workspace)
    assert state.needed(Desired.RUNNING, elsewhere, None) is Action.START


def test_status_follows_what_runs() -> None:
    assert state.status(Desired.RUNNING, Pod(), state.begun(None), None) is WorkspaceStatus.CREATING
    assert state.status(Desired.RUNNING, WHOLE, None, None) is WorkspaceStatus.RUNNING
    assert state.status(Desired.RUNNING, WHOLE, None, "the clone failed") is WorkspaceStatus.RUNNING
    assert state.status(Desired.RUNNING, Pod(), None, "no disk") is WorkspaceStatus.ERROR
    assert state.status(Desired.STOPPED, WHOLE, None, None) is WorkspaceStatus.STOPPED


def test_the_end_of_a_start_leaves_no_step_open() -> None:
    startup = state.with_step(state.begun(None), StepId.RESERVE, StepStatus.DONE, None, 0.1)
    startup = state.with_step(startup, StepId.CREATE, StepStatus.FAILED, "no disk", 0.2)
    over = state.ended(startup, failed=True)
    assert over.state is StartupState.FAILED
    assert {step.status for step in over.steps} == {StepStatus.DONE, StepStatus.FAILED, StepStatus.SKIPPED}
    assert state.begun(over).attempt == 2
