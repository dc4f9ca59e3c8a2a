"""oRPC's protocol on the wire, and what each failure looks like there."""

import logging
from typing import Any

import httpx
import msgspec
import pytest

from controlplane.errors import EngineUnavailable, InvalidInput, PerryError, StepFailed
from controlplane.rpc import BODY_LIMIT, decode
from protocol.batches import BatchRef
from protocol.errors import STATUS, ErrorCode, WireError
from protocol.tasks import TaskRef
from protocol.wire import Wire
from protocol.workspaces import StartWorkspace
from tests.fakes.surface import Surface
from tests.fakes.workspaces import workspace

JSON = {"Content-Type": "application/json"}


async def call(client: httpx.AsyncClient, procedure: str, body: object) -> httpx.Response:
    return await client.post("/rpc/" + procedure.replace(".", "/"), content=msgspec.json.encode(body), headers=JSON)


def error(answer: httpx.Response) -> WireError:
    """The error in an answer, held to the envelope."""
    envelope = msgspec.json.decode(answer.content)
    assert set(envelope) == {"json"}
    assert set(envelope["json"]) <= {"defined", "code", "status", "message", "data"}
    found = msgspec.convert(envelope["json"], WireError)
    assert found.status == answer.status_code == STATUS[ErrorCode(found.code)]
    assert found.defined is False
    assert answer.headers["content-type"].startswith("application/json")
    assert len(answer.headers["x-request-id"]) == 16
    return found


async def test_a_procedure_answers_in_the_envelope(client: httpx.AsyncClient, surface: Surface) -> None:
    surface.workspaces.put(workspace("alpha"))
    answer = await call(client, "workspaces.list", {})
    assert answer.status_code == 200
    [found] = answer.json()["json"]
    assert found["name"] == "alpha"
    assert found["sshHostKeys"] == ["ssh-ed25519 AAAA"]


async def test_an_output_of_nothing_is_null(client: httpx.AsyncClient, surface: Surface) -> None:
    surface.workspaces.put(workspace("alpha"))
    answer = await call(client, "workspaces.delete", {"json": {"name": "alpha", "force": True}})
    assert answer.content == b'{"json":null}'


@pytest.mark.parametrize("body", [{}, {"json": None}, {"json": {}}, {"json": {}, "meta": []}])
async def test_no_input_may_be_said_in_several_ways(client: httpx.AsyncClient, body: object) -> None:
    assert (await call(client, "workspaces.list", body)).status_code == 200


async def test_what_is_undefined_or_a_big_integer_arrives(client: httpx.AsyncClient, surface: Surface) -> None:
    body = {
        "json": {"name": "alpha", "memory": str(1 << 33), "image": None, "wait": None},
        "meta": [[0, "memory"], [3, "wait"], [1, "image"]],
    }
    answer = await call(client, "workspaces.start", body)
    assert answer.status_code == 200
    assert surface.workspaces.asked == [StartWorkspace(name="alpha", memory=1 << 33)]


DEEP = b"[" * 200_000 + b"]" * 200_000
"""Deeper than any Python follows: how deep that is differs by version."""


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (TaskRef, "expected a task's id, such as t-0123456789ab - at `$.id`"),
        (BatchRef, "expected a batch's id, such as b-0123456789ab - at `$.id`"),
    ],
)
def test_an_id_that_is_none_is_answered_with_words(kind: type[Wire], words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(b'{"json":{"id":"alpha"}}', kind)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"name":"alpha"}', "unknown field `name`"),
        (b"{}", "input is missing"),
        (b"", "body must be"),
        (b"[]", "body must be"),
        (b"{", "body must be"),
        (b'{"json":null}', "input is wrong"),
        (b'{"json":{}}', "`name`"),
        (b'{"json":{"name":7}}', "input is wrong"),
        (b'{"json":{"name":"Alpha"}}', "lower-case letters"),
        (b'{"json":{"name":"' + b"a" * 64 + b'"}}', "name of"),
        (b'{"json":{"name":"al\xffpha"}}', "utf-8"),
        (b'{"json":{"name":"a","x":"2"},"meta":[[0,"x","y"]]}', "meta does not fit"),
        (b'{"json":{"name":"a"},"meta":[[0,"none"]]}', "meta does not fit"),
        (b'{"json":{"name":"a"},"meta":7}', "body must be"),
        (b'{"json":' + DEEP + b"}", "body must be"),
    ],
)
async def test_a_wrong_body_is_a_bad_request(client: httpx.AsyncClient, body: bytes, words: str) -> None:
    answer = await client.post("/rpc/workspaces/get", content=body, headers=JSON)
    assert error(answer).code == "BAD_REQUEST"
    assert words in error(answer).message


async def test_a_deeply_nested_body_is_a_bad_request(client: httpx.AsyncClient) -> None:
    body = b'{"json":{"name":"a","x":' + DEEP + b'},"meta":[[3,"x"]]}'
    assert error(await client.post("/rpc/workspaces/get", content=body, headers=JSON)).code == "BAD_REQUEST"


async def test_a_form_is_refused(client: httpx.AsyncClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = await client.post("/rpc/workspaces/list", content=b"{}", headers={"Content-Type": kind})
        assert error(answer).code == "BAD_REQUEST"


async def test_a_body_has_a_bound(client: httpx.AsyncClient) -> None:
    answer = await client.post("/rpc/workspaces/list", content=b" " * (BODY_LIMIT + 1), headers=JSON)
    assert error(answer).code == "PAYLOAD_TOO_LARGE"


async def test_a_get_is_not_supported(client: httpx.AsyncClient) -> None:
    for path in ("/rpc/workspaces/list", "/rpc/workspaces/list?data={}"):
        assert error(await client.get(path)).code == "METHOD_NOT_SUPPORTED"


async def test_an_unknown_route_is_not_found(client: httpx.AsyncClient) -> None:
    for path in ("/rpc/workspaces/nope", "/rpc", "/", "/%2e%2e/etc/passwd", "/rpc/workspaces/list/more", "/events"):
        answer = await client.post(path, content=b"{}", headers=JSON)
        assert error(answer).code in ("NOT_FOUND", "METHOD_NOT_SUPPORTED"), path


async def test_an_error_of_the_service_keeps_its_code_words_and_data(
    client: httpx.AsyncClient, surface: Surface
) -> None:
    surface.workspaces.put(workspace("alpha"))
    found = error(await call(client, "workspaces.delete", {"json": {"name": "alpha"}}))
    assert found.code == "CONFLICT"
    assert "--force" in found.message
    assert found.data == {"uncommitted": ["?? new.py"], "unpushed": []}


@pytest.mark.parametrize("failure", [EngineUnavailable("Docker is away."), StepFailed("The clone failed.")])
async def test_each_error_has_its_status(client: httpx.AsyncClient, surface: Surface, failure: PerryError) -> None:
    surface.workspaces.fail = failure
    found = error(await call(client, "workspaces.list", {}))
    assert (found.code, found.message) == (failure.code, failure.message)


async def test_a_crash_tells_nothing_but_where_to_look(
    client: httpx.AsyncClient, surface: Surface, caplog: pytest.LogCaptureFixture
) -> None:
    surface.workspaces.fail = RuntimeError("the inner secret")
    with caplog.at_level(logging.ERROR):
        answer = await call(client, "workspaces.list", {})
    found = error(answer)
    assert found.code == "INTERNAL_SERVER_ERROR"
    assert b"inner" not in answer.content
    assert found.data == {"requestId": answer.headers["x-request-id"]}
    assert answer.headers["x-request-id"] in found.message
    assert "the inner secret" in caplog.text


async def test_every_procedure_of_the_contract_is_there(client: httpx.AsyncClient) -> None:
    wanted: dict[str, dict[str, Any]] = {
        "workspaces.create": {"name": "beta"},
        "workspaces.start": {"name": "alpha"},
        "workspaces.get": {"name": "alpha"},
        "workspaces.list": {},
        "workspaces.stop": {"name": "alpha"},
        "workspaces.restart": {"name": "alpha"},
        "workspaces.exec": {"name": "alpha", "command": ["ls", "-l"]},
        "workspaces.logs": {"name": "alpha"},
        "workspaces.ports": {"name": "alpha"},
        "workspaces.delete": {"name": "alpha", "force": True},
        "tailnet.status": {},
        "tailnet.join": {},
        "agent.info": {},
        "config.get": {},
        "auth.whoami": {},
        "agent.kill": {},
    }
    for procedure, given in wanted.items():
        answer = await call(client, procedure, {"json": given})
        assert answer.status_code == 200, (procedure, answer.text)


async def test_settings_are_shown_with_their_source(client: httpx.AsyncClient) -> None:
    items = (await call(client, "config.get", {})).json()["json"]["items"]
    assert {"key": "port", "value": 7000, "source": "PERRY_PORT"} in items
    assert {"key": "ssh.firstPort", "value": 22001, "source": "default"} in items


async def test_the_agent_tells_of_itself_and_answers_before_it_stops(
    client: httpx.AsyncClient, surface: Surface
) -> None:
    info = (await call(client, "agent.info", {})).json()["json"]
    assert info["workspacesCount"] == 0
    assert info["dockerVersion"] == "20.10.24"
    assert info["uptime"] >= 0
    assert (await call(client, "agent.kill", {})).json() == {"json": {"ok": True}}
    assert surface.stop.is_set()


async def test_who_am_i(client: httpx.AsyncClient) -> None:
    assert (await call(client, "auth.whoami", {})).json()["json"] == {
        "kind": "token",
        "may": ["health", "manage", "wake", "whoami"],
    }
