"""An old client and a new agent, and the reverse: a clear word, and no crash."""

from pathlib import Path

import httpx
import msgspec
import pytest
from websockets.asyncio.client import connect

from cli import events
from cli.client import Client
from cli.errors import NotReady
from protocol.events import Later, WorkspaceDeleted
from protocol.health import Health
from protocol.version import API_VERSION, VERSION
from protocol.workspaces import Workspace, WorkspaceStatus
from tests.fakes.surface import TOKEN, Surface
from tests.unit.cli.agent import Answer, FakeAgent, refuses, workspace
from tests.unit.cli.conftest import Perry

GOLDEN = Path(__file__).parents[3] / "protocol" / "golden"
OLDER = Answer(200, msgspec.json.encode(Health(ok=True, version="0.0.9", api_version=1)))
NEWER = Answer(200, msgspec.json.encode(Health(ok=True, version="0.10.0", api_version=1)))


@pytest.mark.anyio
async def test_every_answer_says_which_version_it_is_of(tmp_path: Path, anyio_backend: str) -> None:
    expected = {"x-perry-version": VERSION, "x-perry-api": str(API_VERSION)}
    surface = Surface(tmp_path)
    authorised = {"Authorization": f"Bearer {TOKEN}"}
    async with surface.served() as port:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient() as client:
            answers = [
                await client.get(f"{url}/health"),
                await client.post(f"{url}/rpc/workspaces/list", json={}),
                await client.post(f"{url}/rpc/workspaces/list", json={}, headers=authorised),
                await client.get(f"{url}/nowhere", headers=authorised),
            ]
        assert [answer.status_code for answer in answers] == [200, 401, 200, 404]
        for answer in answers:
            assert expected.items() <= dict(answer.headers).items()
        async with connect(f"ws://127.0.0.1:{port}/events", additional_headers=authorised, proxy=None) as ws:
            assert ws.response is not None
            assert all(ws.response.headers[name] == value for name, value in expected.items())


@pytest.mark.anyio
async def test_a_wish_that_is_not_known_is_refused_by_its_name(tmp_path: Path, anyio_backend: str) -> None:
    surface = Surface(tmp_path)
    async with surface.served() as port, httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        for body in (
            {"json": {"name": "alpha", "gpus": 2}},
            {"json": {"name": "alpha", "gpus": "2"}, "meta": [[0, "gpus"]]},
        ):
            answer = await client.post(f"http://127.0.0.1:{port}/rpc/workspaces/start", json=body)
            assert answer.status_code == 400
            assert "'gpus', which this agent (version" in answer.json()["json"]["message"]
        undefined = {"json": {"name": "alpha", "gpus": None}, "meta": [[3, "gpus"]]}
        answer = await client.post(f"http://127.0.0.1:{port}/rpc/workspaces/start", json=undefined)
        assert answer.status_code == 200
    assert len(surface.workspaces.asked) == 1


def test_what_a_newer_agent_says_is_shown(perry_: Perry, agent: FakeAgent) -> None:
    newer = msgspec.json.decode((GOLDEN / "newer.json").read_bytes())["workspaces"][0]
    agent.answers["workspaces.list"] = [newer]
    agent.answers["workspaces.get"] = newer
    assert "hibernating" in perry_("list").stdout
    shown = perry_("info", "alpha")
    assert shown.exit_code == 0 and "postponed" in shown.stdout


def test_events_that_only_a_newer_agent_knows_are_passed_over() -> None:
    assert events._known('{"type":"taskDone","seq":7,"task":{}}') == Later(seq=7)
    assert events._known('{"type":"workspaceDeleted","seq":8,"name":"a"}') == WorkspaceDeleted(seq=8, name="a")
    with pytest.raises(msgspec.ValidationError):
        events._known('{"type":"workspaceDeleted","seq":8}')


@pytest.mark.parametrize(
    ("health", "words"),
    [(OLDER, "older than this perry, which is"), (NEWER, "newer than this perry, which is")],
)
def test_what_the_agent_cannot_do_is_said_with_whom_to_update(
    perry_: Perry, agent: FakeAgent, health: Answer, words: str
) -> None:
    agent.health = health
    result = perry_("tailnet", "join")
    assert result.exit_code == 7 and words in result.stderr
    assert ("update the agent" if health is OLDER else "update perry here") in result.stderr


@pytest.mark.parametrize(
    "said", ["There is no WebSocket at /exec/alpha.", "There is no GET /logs/alpha; GET /schema …"]
)
def test_streams_that_an_older_agent_has_not(agent: FakeAgent, said: str) -> None:
    from protocol.errors import ErrorCode

    agent.health = OLDER
    refusal = Client().refusal(404, refuses(ErrorCode.NOT_FOUND, said).body)
    assert isinstance(refusal, NotReady) and "update the agent" in refusal.message


def test_a_word_that_nobody_knows_stays_as_it_came() -> None:
    told = msgspec.convert(msgspec.to_builtins(workspace("alpha")) | {"status": "hibernating"}, Workspace)
    assert told.status == "hibernating" and told.status is not WorkspaceStatus.RUNNING
    assert msgspec.to_builtins(told)["status"] == "hibernating"
    assert [status.value for status in WorkspaceStatus] == ["running", "stopped", "creating", "error"]
