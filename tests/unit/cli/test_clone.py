"""``perry clone``: what it asks for, what it shows, and where a copy cannot be made."""

import threading
from typing import Any

import msgspec

from controlplane.workspaces import state
from controlplane.workspaces.state import StepId
from protocol.errors import ErrorCode
from protocol.events import WorkspaceDeleted
from protocol.workspaces import StepStatus, Workspace
from tests.unit.cli.agent import FakeAgent, ended, refuses, starting, with_step
from tests.unit.cli.conftest import Perry


def copying(agent: FakeAgent, *, error: str | None = None) -> None:
    """Copies answer at once, and go on in a thread."""

    def clone(wanted: Any) -> Workspace:
        begun = msgspec.structs.replace(starting(wanted["new"]), startup=state.begun(None, copies=True))
        agent.workspaces[begun.name] = begun
        threading.Thread(target=walk, args=(begun,), daemon=True).start()
        return begun

    def walk(now: Workspace) -> None:
        agent.wait_for_subscriptions(1)
        agent.publish(with_step(now, StepId.COPY, StepStatus.RUNNING, "1.0 MB of 2.0 MB"))
        done = StepStatus.DONE if error is None else StepStatus.FAILED
        now = with_step(now, StepId.COPY, done, error or "alpha was frozen for 0.4 s.")
        agent.publish(ended(now, failed=error is not None, error=error))
        if error is not None:
            del agent.workspaces[now.name]
            agent._tell(WorkspaceDeleted(seq=9, name=now.name))

    agent.answers["workspaces.clone"] = clone


def test_its_steps_are_shown_to_the_end(perry_: Perry, agent: FakeAgent) -> None:
    copying(agent)
    result = perry_("clone", "alpha", "beta")
    assert result.exit_code == 0, result.output
    assert agent.calls[0] == ("workspaces.clone", {"name": "alpha", "new": "beta", "wait": False})
    assert "done    Copy the other workspace: alpha was frozen for 0.4 s." in result.stdout
    assert "beta runs, after" in result.stdout


def test_a_copy_that_cannot_be_made_says_why(perry_: Perry, agent: FakeAgent) -> None:
    copying(agent, error="There is no room for a copy of 'alpha'.")
    result = perry_("clone", "alpha", "beta")
    assert result.exit_code == 1 and "There is no room for a copy of 'alpha'." in result.stderr


def test_what_is_refused(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["workspaces.clone"] = refuses(ErrorCode.CONFLICT, "A workspace named 'beta' exists already.")
    assert perry_("clone", "alpha", "beta").exit_code == 5
    assert perry_("clone", "alpha", "Beta").exit_code == 2
    assert perry_("clone", "alpha").exit_code == 2


def test_without_waiting(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["workspaces.clone"] = lambda wanted: starting(wanted["new"])
    result = perry_("clone", "alpha", "beta", "--no-wait")
    assert result.exit_code == 0 and "`perry info beta`" in result.stdout
