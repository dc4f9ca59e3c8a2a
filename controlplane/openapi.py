"""The OpenAPI document of everything that is served, envelopes included.

Made from the procedures' declarations and the structs of the protocol. ``make generate`` writes
``protocol/openapi.json``, from which the TypeScript client is generated; a test fails when it is out of date.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from controlplane.auth.policy import Right
from controlplane.procedures import Procedure
from protocol.auth import AuthFrame
from protocol.errors import ErrorCode, WireError
from protocol.events import Event
from protocol.exec import ClientFrame, ServerFrame
from protocol.health import Health, Readiness
from protocol.sessions import SessionsFrame, Subscribe
from protocol.version import VERSION
from protocol.wake import DoorAnswer, WakeMode
from protocol.workspaces import LogLine, UnsavedWork

FILE: Final = Path("protocol/openapi.json")

_EXTRA: tuple[Any, ...] = (
    LogLine,
    WireError,
    ErrorCode,
    DoorAnswer,
    UnsavedWork,
    Event,
    AuthFrame,
    ClientFrame,
    ServerFrame,
    Health,
    Readiness,
    SessionsFrame,
    Subscribe,
)
_JSON = "application/json"


def document(procedures: Sequence[Procedure]) -> dict[str, Any]:
    """The document, ready to be encoded."""
    kinds: list[Any] = [kind for p in procedures for kind in (p.input, p.output) if kind is not None]
    schemas, components = msgspec.json.schema_components([*kinds, *_EXTRA], ref_template="#/components/schemas/{name}")
    for component in components.values():
        if "description" in component:
            # Python dedents docstrings by itself only from 3.13 on.
            component["description"] = inspect.cleandoc(component["description"])
    of = {_key(kind): schema for kind, schema in zip([*kinds, *_EXTRA], schemas, strict=True)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Perry",
            "version": VERSION,
            "description": "Procedures speak oRPC's RPC protocol: `POST /rpc/<group>/<procedure>`.",
        },
        "security": [{"token": []}],
        "paths": {**{p.path: _procedure(p, of) for p in procedures}, **_plain_paths(of)},
        "components": {
            "schemas": dict(sorted(components.items())),
            "responses": {"Error": _content("An error.", _enveloped(of[_key(WireError)]))},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "x-websockets": {
            "/events": {
                "description": "A snapshot, then changes. Resume with ?epoch=<epoch>&after=<seq>.",
                "send": of[_key(AuthFrame)],
                "receive": of[_key(Event)],
                "closeCodes": {
                    "1001": "The control plane stops.",
                    "1013": "The client was too slow; connect again.",
                    "4001": "Not authorised.",
                },
            },
            "/sessions": _sessions_socket("of all workspaces", of),
            "/sessions/{name}": _sessions_socket("of one workspace", of),
            "/exec/{name}": {
                "description": "One command in a workspace. A binary frame is a byte that says of which stream "
                "(0 stdin, 1 stdout, 2 stderr), and bytes of it; text frames are as below. See docs/api.md.",
                "send": {"anyOf": [of[_key(AuthFrame)], of[_key(ClientFrame)]]},
                "receive": of[_key(ServerFrame)],
                "closeCodes": {
                    "1000": "The command has ended.",
                    "1001": "The workspace was stopped, or the control plane stops.",
                    "1008": "The client broke the rules.",
                    "1011": "The command could not be started.",
                    "4001": "Not authorised.",
                },
            },
        },
    }


def encoded(procedures: Sequence[Procedure]) -> bytes:
    """The document as it is committed."""
    return msgspec.json.format(msgspec.json.encode(document(procedures)), indent=2) + b"\n"


def _procedure(procedure: Procedure, of: dict[str, Any]) -> dict[str, Any]:
    given = of[_key(procedure.input)] if procedure.input is not None else {"type": "object"}
    operation: dict[str, Any] = {
        "operationId": f"{procedure.group}.{procedure.name}",
        "tags": [procedure.group],
        "summary": procedure.summary,
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": _enveloped(given, required=procedure.input is not None)}},
        },
        "responses": {
            "200": _content("The answer.", _enveloped(of.get(_key(procedure.output), {"type": "null"}))),
            "default": {"$ref": "#/components/responses/Error"},
        },
    }
    if procedure.right is not Right.MANAGE:
        operation["x-right"] = procedure.right.value
    return {"post": operation}


def _sessions_socket(which: str, of: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": f"The sessions {which}: a snapshot, then changes; and the messages of those that the client "
        "subscribes to. Resume with ?epoch=<epoch>&after=<seq>.",
        "send": {"anyOf": [of[_key(AuthFrame)], of[_key(Subscribe)]]},
        "receive": of[_key(SessionsFrame)],
        "closeCodes": {
            "1001": "The control plane stops.",
            "1008": "The client broke the rules.",
            "1013": "The client was too slow; connect again.",
            "4001": "Not authorised.",
        },
    }


def _plain_paths(of: dict[str, Any]) -> dict[str, Any]:
    error = {"$ref": "#/components/responses/Error"}
    upload_id = {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[a-z0-9]{16,64}$"},
    }
    return {
        "/health": _get("Whether the control plane is there.", _content("It is.", of[_key(Health)]), security=[]),
        "/ready": {
            "get": {
                "operationId": "ready",
                "summary": "Whether the control plane can work now.",
                "responses": {
                    "200": _content("It can.", of[_key(Readiness)]),
                    "503": _content("It cannot; `error` says why.", of[_key(Readiness)]),
                    "default": error,
                },
            }
        },
        "/metrics": _get(
            "Metrics in Prometheus' text format.", {"description": "Metrics.", "content": {"text/plain": {}}}
        ),
        "/schema": _get("This document.", {"description": "OpenAPI 3.1.", "content": {_JSON: {}}}),
        "/hooks/wake": {
            "post": {
                "operationId": "wake",
                "summary": "Wake a person's assistant. The answer says that the wake is safe, and its id.",
                "requestBody": {
                    "required": True,
                    "content": {
                        _JSON: {
                            "schema": {
                                "type": "object",
                                "required": ["text"],
                                "properties": {
                                    "text": {"type": "string"},
                                    "mode": {"enum": [mode.value for mode in WakeMode]},
                                },
                            }
                        }
                    },
                },
                "responses": {
                    "200": _content("It was taken.", of[_key(DoorAnswer)]),
                    "default": _content("It was not; `error` says why.", of[_key(DoorAnswer)]),
                },
                "x-right": Right.WAKE.value,
            }
        },
        "/logs/{name}": {
            "get": {
                "operationId": "logs.follow",
                "summary": "Follow what a workspace prints: the newest lines, and new ones for as long as it is read.",
                "parameters": [
                    {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
                    {"name": "tail", "in": "query", "schema": {"type": "integer", "default": 200}},
                    {"name": "since", "in": "query", "schema": {"type": "string"}},
                ],
                "responses": {
                    "200": {
                        "description": "A LogLine on each line; an empty line every 15 seconds of quiet.",
                        "content": {"application/x-ndjson": {"schema": of[_key(LogLine)]}},
                    },
                    "default": error,
                },
            }
        },
        "/uploads/{id}": {
            "put": {
                "operationId": "uploads.put",
                "summary": "Send a git bundle ahead, for `workspaces.start` with `clone: upload:<id>`.",
                "parameters": [upload_id],
                "requestBody": {"required": True, "content": {"application/octet-stream": {}}},
                "responses": {"204": {"description": "It is kept for a day."}, "default": error},
            }
        },
    }


def _get(summary: str, answer: dict[str, Any], *, security: list[Any] | None = None) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": answer, "default": {"$ref": "#/components/responses/Error"}},
    }
    if security is not None:
        operation["security"] = security
    return {"get": operation}


def _content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _enveloped(schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    envelope: dict[str, Any] = {"type": "object", "properties": {"json": schema}}
    return {**envelope, "required": ["json"]} if required else envelope


def _key(kind: Any) -> str:
    """Types are compared by what they say, as generic ones are not the same object twice."""
    return repr(kind)
