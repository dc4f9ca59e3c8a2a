"""Speaks to OpenCode's server, wherever it listens at the moment. Tried with OpenCode 1.18.

The password stands in a file that the control plane puts there; the door on the tailnet (the sidecar's) knows it too.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

import msgspec

from worker import processes

PORT: Final = 4096
"""Where people and programs find it, on loopback; the server itself has another port (see :class:`Running`)."""
PASSWORD_FILE: Final = Path("/etc/perry/opencode-password")
USER: Final = "opencode"

CALL_SECONDS: Final = 60.0
ANSWER_LIMIT: Final = 64 << 20
EVENT_LIMIT: Final = 16 << 20

RECORD: Final = ".local/state/perry/opencode-server.json"
"""Below the home folder: the server that runs. It outlives the worker that has started it."""


class Unusable(Exception):
    """OpenCode's server is not there, or refused; the message is a sentence."""


class Running(msgspec.Struct, frozen=True):
    """A server's process, and its port on loopback. ``started`` is as :func:`worker.processes.started` has it,
    ``since`` the same in milliseconds since 1970."""

    pid: int
    started: int
    port: int
    since: int


def running(home: Path) -> Running | None:
    """The server that runs for this home; None where none does."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        found = msgspec.json.decode((home / RECORD).read_bytes(), type=Running)
        if processes.started(found.pid) == found.started:
            return found
    return None


def password() -> str:
    """Unusable where there is none."""
    try:
        return PASSWORD_FILE.read_text().strip()
    except OSError as exc:
        raise Unusable(
            f"The password of OpenCode's server cannot be read ({exc.strerror}); a restart of the workspace makes one."
        ) from exc


def headers() -> dict[str, str]:
    """What every request has."""
    credentials = base64.b64encode(f"{USER}:{password()}".encode()).decode()
    return {"Authorization": f"Basic {credentials}", "Accept-Encoding": "identity"}


async def call(method: str, path: str, body: Any, *, seconds: float = CALL_SECONDS) -> Any:
    """One request to the server; its answer's JSON, None where it has no body. Unusable where it refuses, or answers
    with something else."""
    return await asyncio.to_thread(_call, method, path, body, seconds)


def _connection(seconds: float) -> HTTPConnection:
    """Unusable where no server runs."""
    found = running(Path.home())
    if found is None:
        raise Unusable("OpenCode's server is not running.")
    return HTTPConnection("127.0.0.1", found.port, timeout=seconds)


def _call(method: str, path: str, body: Any, seconds: float) -> Any:
    data = None if body is None else json.dumps(body).encode()
    typed = {} if data is None else {"Content-Type": "application/json"}
    connection = _connection(seconds)
    try:
        connection.request(method, path, data, headers() | typed)
        response = connection.getresponse()
        answer = response.read(ANSWER_LIMIT)
    except (OSError, HTTPException) as exc:
        raise Unusable(f"OpenCode's server does not answer ({exc or type(exc).__name__}).") from exc
    finally:
        connection.close()
    if response.status >= 400 or "json" not in response.getheader("Content-Type", "json"):
        said = _said(answer)
        raise Unusable(f"OpenCode's server refused {method} {path.partition('?')[0]} ({response.status}): {said}")
    try:
        return json.loads(answer) if answer.strip() else None
    except (ValueError, RecursionError) as exc:
        asked = f"{method} {path.partition('?')[0]}"
        raise Unusable(f"OpenCode's server answered {asked} with something else than JSON: {_said(answer)}") from exc


def events(path: str, silent_seconds: float) -> Iterator[bytes]:
    """The data of each of the server's events, until it is silent for so long (OSError) or the stream ends. Blocks."""
    connection = _connection(silent_seconds)
    try:
        connection.request("GET", path, headers=headers() | {"Accept": "text/event-stream"})
        response = connection.getresponse()
        if response.status != 200:
            raise Unusable(f"OpenCode's server does not tell its events ({response.status}).")
        while line := response.readline(EVENT_LIMIT):
            if line.startswith(b"data:"):
                yield line[5:]
    finally:
        connection.close()


def _said(answer: bytes) -> str:
    return " ".join(answer.decode(errors="replace").split())[:300]
