"""Real coding agents' sessions, from real workspaces to the API and the CLI. Their model is a fake one."""

import json
import os
import select
from functools import partial

import msgspec
import pytest

from protocol.sessions import (
    NewMessages,
    SessionChanged,
    SessionDeleted,
    SessionInfo,
    SessionsFrame,
    SessionsSnapshot,
    SessionStatus,
    Subscribe,
    SubscribeKind,
    Text,
    ToolCall,
    ToolResult,
)
from protocol.workspaces import Workspace
from tests.e2e import gemini_cli
from tests.e2e.coding_agents import (
    Agents,
    codex_that_asks,
    hear,
    kill_worker,
    on_a_terminal,
    said,
    saying,
    text,
    watching,
)
from tests.e2e.system import PATIENCE, System, docker, eventually
from tests.fakes.model_server.inside import PROJECT

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

WHERE = {"claude": "alpha", "codex": "alpha", "gemini": "alpha", "opencode": "beta"}
"""In which workspace each agent works."""
SCRIPTS = {
    # Said by the model alone: what is found of it was not in a prompt.
    f"Count the hosts for {agent}": f"[[run: wc -l /etc/hosts]] [[say: The {animal} of {agent} has counted them.]]"
    for agent, animal in (("claude", "walrus"), ("codex", "ocelot"), ("gemini", "gecko"), ("opencode", "badger"))
} | {
    "Slowly": "[[say: It begins.]] [[run: sleep 1; echo slept]] [[say: It goes on.]] [[wait: 1]] [[say: It ends.]]",
    "Go on": "[[run: echo second]] [[say: The second turn has ended.]]",
}


@pytest.fixture(scope="module")
def agents(system: System, alpha: Workspace, beta: Workspace) -> Agents:
    made = Agents(system, WHERE, SCRIPTS)
    gemini_cli.install(system.container("alpha"))
    made.start()
    return made


@pytest.fixture(scope="module")
def counted(agents: Agents) -> dict[str, SessionInfo]:
    """A session of each agent, in which it has used a tool and said a sentence."""
    agents.at_once({agent: f"Count the hosts for {agent}" for agent in WHERE})
    return {agent: eventually(partial(saying, agents, agent, "has counted"), f"{agent} is heard") for agent in WHERE}


@pytest.mark.parametrize("agent", WHERE)
def test_what_an_agent_did_is_told_as_it_was(agents: Agents, counted: dict[str, SessionInfo], agent: str) -> None:
    session = agents.until(counted[agent], lambda each: each.status is SessionStatus.IDLE, f"{agent} is idle")
    assert (session.workspace, session.live, session.cwd) == (WHERE[agent], True, PROJECT)
    assert session.message_count >= 2 and session.resume and session.session_id in session.resume
    assert session.title and session.tokens is not None and session.model
    messages = agents.messages(session)
    assert [message.ordinal for message in messages] == list(range(len(messages)))
    blocks = [block for message in messages for block in message.blocks]
    (call,) = (block for block in blocks if isinstance(block, ToolCall))
    (result,) = (block for block in blocks if isinstance(block, ToolResult))
    assert "wc -l /etc/hosts" in json.dumps(json.loads(call.input)) and call.call_id == result.call_id
    assert "/etc/hosts" in result.output and not result.failed
    assert messages[0].role.value == "user" and f"Count the hosts for {agent}" in text(messages[:1])


def test_what_was_said_is_found_everywhere(agents: Agents, counted: dict[str, SessionInfo]) -> None:
    found = agents.search("counted them")
    assert {(where, agent) for where, agent, _ in found} == {(WHERE[agent], agent) for agent in WHERE}
    assert agents.search('"ocelot of codex"') == [("alpha", "codex", "assistant")]
    assert agents.search("walr*") == [("alpha", "claude", "assistant")]
    assert agents.search("unicorn") == []


@pytest.mark.parametrize("agent", ["claude", "codex", "opencode"])
def test_a_session_grows_while_it_is_watched(agents: Agents, counted: dict[str, SessionInfo], agent: str) -> None:
    session = counted[agent]
    with watching(agents.system) as socket:
        first = hear(socket, lambda frame: isinstance(frame, SessionsSnapshot))[-1]
        assert isinstance(first, SessionsSnapshot)
        assert session.session_id in [each.session_id for each in first.items]
        asked = Subscribe(type=SubscribeKind.SUBSCRIBE, workspace=session.workspace, agent=agent,
                          session_id=session.session_id)  # fmt: skip
        socket.send(msgspec.json.encode(asked).decode())
        with agents.model(agent).prompt_in_background(agent, "Slowly, please", session=session.session_id) as process:
            heard = hear(socket, lambda frame: isinstance(frame, NewMessages) and "It begins." in text(frame.items))
            assert process.poll() is None, "what was said is told while the agent works, not after it"
            heard += hear(socket, lambda frame: isinstance(frame, NewMessages) and "It ends." in text(frame.items))
            process.communicate(timeout=60)
        assert process.returncode == 0
    mine = [frame.session for frame in heard if isinstance(frame, SessionChanged) and frame.session.agent == agent]
    assert {each.session_id for each in mine} == {session.session_id}
    assert SessionStatus.BUSY in {each.status for each in mine}
    after = agents.until(session, lambda each: each.status is SessionStatus.IDLE, f"{agent} is idle again")
    assert after.message_count > session.message_count


@pytest.mark.parametrize("agent", WHERE)
def test_a_session_is_renamed_in_the_agents_own_store_and_resumed(
    agents: Agents, counted: dict[str, SessionInfo], agent: str
) -> None:
    session = counted[agent]
    title = f"Hosts of {agent}"
    agents.system.perry("sessions", "rename", session.session_id, title)
    agents.until(session, lambda each: each.title == title, f"{agent}'s session has its new title")
    output = agents.model(agent).prompt(agent, "Go on", session=session.session_id)
    assert "second turn" in output
    agents.until(session, lambda each: "second turn" in said(agents, each), "the second turn is in the same session")
    assert agents.until(session, lambda each: each.live, "it is live").title == title
    assert [each.session_id for each in agents.of(agent)] == [session.session_id]


def test_a_session_is_opened_again_on_a_terminal(agents: Agents, counted: dict[str, SessionInfo]) -> None:
    """By ssh, in its workspace and folder: Claude Code shows what was said."""
    shown = on_a_terminal(agents.system, "sessions", "resume", counted["claude"].session_id)
    try:
        seen = b""
        while b"walrus" not in seen:
            ready, _, _ = select.select([shown.fd], [], [], 30 * PATIENCE)
            assert ready, seen
            seen += os.read(shown.fd, 65536)
    finally:
        shown.end()


def test_the_cli_shows_them(agents: Agents, counted: dict[str, SessionInfo]) -> None:
    perry = agents.system.perry
    listed = perry("sessions", "list").stdout
    assert all(agent in listed for agent in WHERE)
    session = counted["claude"].session_id
    shown = perry("sessions", "messages", f"alpha/{session[:13]}", "--all").stdout
    assert "▸ Bash wc -l /etc/hosts" in shown and "The walrus of claude has counted them." in shown
    found = perry("sessions", "search", "walrus of claude").stdout
    assert f"perry sessions messages {session[:8]}" in found
    head, *lines = perry("sessions", "export", session).stdout.splitlines()
    assert json.loads(head)["sessionId"] == session and "walrus" in "".join(lines)


def test_a_subagent_belongs_to_the_session_that_called_it(agents: Agents) -> None:
    called = {
        "description": "Counts words",
        "subagent_type": "general-purpose",
        "prompt": "Count the words [[run: echo one two]] [[say: The fable has two words.]]",
    }
    agents.model("claude").teach({"Ask a helper": f"[[tool: Agent {json.dumps(called)}]] [[say: It has counted.]]"})
    agents.model("claude").prompt("claude", "Ask a helper")
    parent = eventually(partial(saying, agents, "claude", "It has counted."), "the session is told of")

    def helper() -> SessionInfo | None:
        found = agents.sessions(parent=parent.session_id)
        return found[0] if found and "The fable has two words." in said(agents, found[0]) else None

    child = eventually(helper, "its subagent is told of")
    assert (child.title, child.parent, child.resume) == ("Counts words", parent.session_id, None)
    assert child.session_id not in [each.session_id for each in agents.sessions()]
    assert child.session_id in [each.session_id for each in agents.sessions(subagents=True)]


def test_a_token_that_is_said_is_not_kept(agents: Agents) -> None:
    token = "ghp_" + "0123456789abcdefgh" * 2
    agents.model("codex").teach({"Show the token": f"[[run: echo {token}]] [[say: It is {token}, shown.]]"})
    agents.model("codex").prompt("codex", "Show the token")
    session = eventually(partial(saying, agents, "codex", ", shown."), "the session is told of")
    assert "It is ghp_[masked], shown." in said(agents, session)
    files = list(agents.system.folder.glob("sessions.db*"))
    assert files and not [file for file in files if token.encode() in file.read_bytes()]


def test_a_worker_that_is_killed_in_mid_stream_loses_nothing(agents: Agents) -> None:
    lines = "; ".join(f"echo line-{i}" for i in range(5))
    agents.models["alpha"].teach({"Many lines": "".join(f"[[say: Part {i}.]][[run: {lines}]]" for i in range(8))})
    container = agents.system.container("alpha")
    with agents.models["alpha"].prompt_in_background("claude", "Many lines, please") as process:
        for _ in range(2):
            eventually(lambda: kill_worker(container), "there is a worker to kill", seconds=10)
        process.communicate(timeout=60)
    assert process.returncode == 0
    messages = agents.messages(eventually(partial(saying, agents, "claude", "Part 7."), "all of it is told"))
    assert [block.text for message in messages for block in message.blocks if isinstance(block, Text)][1:9] == [
        f"Part {i}." for i in range(8)
    ]
    assert len({message.id for message in messages}) == len(messages)


def test_a_container_that_docker_restarts_tells_again(agents: Agents, counted: dict[str, SessionInfo]) -> None:
    docker("restart", "-t", "2", agents.system.container("beta"))
    agents.models["beta"].start("opencode")
    session = agents.until(counted["opencode"], lambda each: each.live, "it is followed again")
    before = agents.messages(session)
    agents.models["beta"].teach({"After all": "[[say: The restart has not hurt.]]"})
    agents.model("opencode").prompt("opencode", "After all?", session=session.session_id)
    agents.until(session, lambda each: "has not hurt" in said(agents, each), "it grows again")
    assert agents.messages(session)[: len(before)] == before


def test_who_asks_a_person_is_waiting(agents: Agents) -> None:
    """OpenCode a question, in its server; Codex, to be allowed a command, in that of an editor."""
    asked = {"workspace": "beta", "agent": "opencode", "task": "[[ask: Which colour?]]"}
    task = agents.system.call("tasks.dispatch", asked)
    with codex_that_asks(agents.system.container("alpha")) as thread:
        (codex,) = eventually(lambda: agents.sessions(agent="codex", status="waiting"), "Codex waits", seconds=30)
        assert codex.session_id == thread
        (opencode,) = eventually(lambda: agents.sessions(agent="opencode", status="waiting"), "OpenCode waits")
        assert "Which colour?" in opencode.title
    agents.until(codex, lambda each: each.status is SessionStatus.IDLE, "nobody asks any more")
    agents.system.call("tasks.cancel", {"id": task["id"]})
    agents.until(opencode, lambda each: each.status is not SessionStatus.WAITING, "nobody asks any more")


STORES = {
    "claude": "~/.claude/projects",
    "codex": "~/.codex/sessions",
    "gemini": "~/.gemini/tmp",
}
"""Where each agent keeps what was said; OpenCode in a database, which keeps deleted bytes."""


def test_sessions_are_deleted_in_the_agents_own_stores(agents: Agents, counted: dict[str, SessionInfo]) -> None:
    agents.at_once({agent: f"Say [[say: The yak of {agent} is to go.]]" for agent in WHERE})
    for agent, where in WHERE.items():
        session = eventually(partial(saying, agents, agent, "is to go."), f"{agent} is heard")
        agents.until(session, lambda each: each.status is SessionStatus.IDLE, f"{agent} has ended")
        with watching(agents.system, where) as socket:
            hear(socket, lambda frame: isinstance(frame, SessionsSnapshot))
            agents.system.perry("sessions", "delete", session.session_id, "--in-workspace", "--yes")
            hear(socket, partial(_is_gone, session))
        left = [each.session_id for each in agents.of(agent)]
        assert session.session_id not in left, (agent, session, left)
        # Gemini CLI takes a session that it was resumed in away itself, when it begins another one.
        assert agent == "gemini" or counted[agent].session_id in left, (agent, counted[agent], left)
        assert agents.search(f'"yak of {agent}"') == []
        if agent in STORES:
            look = f"grep -rl 'yak of' {STORES[agent]} || true"
        else:
            look = f"opencode export {session.session_id} 2>/dev/null </dev/null | grep 'yak of' || true"
        assert agents.system.inside(where, "sh", "-c", look).strip() == "", agent


def _is_gone(session: SessionInfo, frame: SessionsFrame) -> bool:
    return isinstance(frame, SessionDeleted) and frame.session_id == session.session_id


def test_sessions_outlive_the_workspace_that_stops(agents: Agents, counted: dict[str, SessionInfo]) -> None:
    """And those of one that is deleted too, where that is wished."""
    system = agents.system
    system.perry("stop", "alpha")
    assert agents.search('"ocelot of codex"') == [("alpha", "codex", "assistant")]
    assert not agents.until(counted["codex"], lambda each: not each.live, "it is not followed any more").live
    refused = system.perry("sessions", "resume", counted["codex"].session_id, check=False)
    assert refused.returncode == 7 and "perry start alpha" in refused.stderr
    system.perry("delete", "alpha", "--force", "--keep-sessions")
    assert agents.search('"ocelot of codex"') == [("alpha", "codex", "assistant")]
    assert agents.until(counted["codex"], lambda each: each.deleted_workspace, "it is marked")
    system.perry("delete", "beta", "--force")
    assert agents.search("badger") == [] and agents.of("opencode") == []
