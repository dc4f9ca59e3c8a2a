"""Steps of what an agent does, while a command waits for its answer."""

import time

import pytest

from cli.client import Client
from cli.errors import Interrupted, Refused
from cli.following import following
from protocol.workspaces import Step, StepStatus, Work
from tests.unit.cli.agent import FakeAgent, workspace
from tests.unit.cli.conftest import Perry


def stopping(status: StepStatus) -> Work:
    return Work(kind="stop", steps=[Step(id="stop", title="Stop it", status=status, seconds=0.5)])


def test_steps_are_shown_until_the_answer_comes(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    def call() -> int:
        agent.publish(workspace("beta", work=Work(kind="stop", steps=[])))
        for status in (StepStatus.RUNNING, StepStatus.DONE):
            agent.publish(workspace("alpha", work=stopping(status)))
        time.sleep(0.5)
        return 5

    assert following(Client(), "alpha", "the stop", call) == 5
    assert capsys.readouterr().err == "done    Stop it (0.5 s)\n"


def test_what_goes_wrong_is_the_calls_own_sentence(agent: FakeAgent) -> None:
    def call() -> int:
        raise Refused("It is busy.")

    with pytest.raises(Refused, match="It is busy"):
        following(Client(), "alpha", "the stop", call)


def test_ctrl_c_leaves_the_work_going_on(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.events.Events.receive", interrupted)
    with pytest.raises(Interrupted, match="the stop goes on"):
        following(Client(), "alpha", "the stop", lambda: time.sleep(0.5))


def test_ctrl_c_is_no_error(perry_: Perry, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "call", interrupted)
    result = perry_("list")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted.\n")


def test_the_call_is_made_where_no_events_come(
    perry_: Perry, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.answers["workspaces.stop"] = workspace("alpha")
    monkeypatch.setenv("PERRY_TOKEN", "secret")
    monkeypatch.setattr("cli.events.Events._connect", lambda _: (_ for _ in ()).throw(OSError("no")))
    assert perry_("stop", "alpha").exit_code == 0
    assert [name for name, _ in agent.calls] == ["workspaces.stop"]
