"""Tasks for OpenCode work in its server, where a person can watch them and answer what they ask.

Tried with OpenCode 1.18. A prompt is posted (``prompt_async``), and the server's events tell how it goes. Events are
not kept for those who come late, so after each (re)connection the session is read anew.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from protocol.tasks import TaskState
from worker import processes
from worker.opencode.client import PORT, Running, Unusable, call, events, running
from worker.tasks import record
from worker.tasks.agents import Told

__all__ = ["Unusable", "work"]

SILENT_SECONDS: Final = 30.0
"""The server sends a heartbeat every ten seconds; one that is silent for longer is gone."""

TRIES: Final = 20

STARVED: Final = (
    "OpenCode's server was killed in the middle of the task because the workspace was out of memory; give it more with "
    "--memory."
)


class Heard:
    """What the session has told."""

    def __init__(self, session_id: str) -> None:
        self.session_id: str | None = session_id
        self.last_message: str | None = None
        self.failure: str | None = None


class Log(Protocol):
    """What people read of a task."""

    def write(self, text: str) -> None: ...


class Runner(Protocol):
    """The process that stands around the task; see :class:`worker.tasks.runner.Runner`."""

    folder: Path
    spec: record.Spec

    @property
    def log(self) -> Log: ...

    def note(self, **changes: object) -> None: ...

    def end(self, state: TaskState, *, reason: str | None = None, exit_code: int | None = None) -> None: ...

    def heard(self, heard: Told) -> None: ...


async def work(runner: Runner) -> None:
    """From the first prompt to the end, written down in the runner's state."""
    spec = runner.spec
    server, killed_before = running(Path.home()), processes.out_of_memory_kills()
    where = f"?directory={_quoted(spec.folder)}"
    session = await call("POST", f"/session{where}", {"title": _title(runner.folder)})
    heard = Heard(str(session["id"]))
    runner.heard(heard)
    text = (runner.folder / record.TEXT).read_text()
    prompt: dict[str, Any] = {"parts": [{"type": "text", "text": text}]}
    if spec.model:
        provider, _, model = spec.model.partition("/")
        prompt["model"] = {"providerID": provider, "modelID": model}
    try:
        async with contextlib.aclosing(_events(where, server)) as stream:
            await anext(stream)  # It is connected: from here on nothing is missed.
            await call("POST", f"/session/{heard.session_id}/prompt_async{where}", prompt)
            await _follow(runner, heard, stream)
    except Unusable as exc:
        if processes.out_of_memory_kills() > killed_before:
            raise Unusable(STARVED) from exc
        raise
    except asyncio.CancelledError:
        with contextlib.suppress(Unusable, TimeoutError):
            async with asyncio.timeout(10):
                await call("POST", f"/session/{heard.session_id}/abort{where}", {})
        raise
    runner.heard(heard)
    if heard.failure is None:
        runner.end(TaskState.SUCCEEDED, exit_code=0)
    else:
        runner.end(TaskState.FAILED, reason=f"The agent failed: {heard.failure[:500]}")


async def _follow(runner: Runner, heard: Heard, stream: AsyncIterator[dict[str, Any]]) -> None:
    """Until the session is idle. What it asks of a person makes the task wait."""
    roles: dict[str, str] = {}
    shown: set[str] = set()
    asks: set[str] = set()
    async for event in stream:
        kind, about = str(event.get("type")), event.get("properties", {})
        if kind == "server.connected":
            if await _is_over(heard):  # Reconnected: what was missed is read.
                return
            continue
        if _session_of(about) != heard.session_id:
            continue
        match kind:
            case "message.updated":
                info = about.get("info", {})
                roles[str(info.get("id"))] = str(info.get("role"))
            case "message.part.updated":
                part = about.get("part", {})
                if roles.get(str(part.get("messageID"))) == "assistant":
                    _show(runner, heard, part, shown)
            case "session.error":
                heard.failure = _reason(about.get("error"))
                runner.log.write(f"{heard.failure}\n")
            case "permission.asked" | "permission.v2.asked" | "question.asked":
                asks.add(str(about.get("id")))
                runner.log.write(f"[It asks: {_question(about)}]\n")
                reason = f"It asks: {_question(about)} Answer in OpenCode, at port {PORT} of the workspace."
                runner.note(state=TaskState.WAITING, reason=reason)
            case "permission.replied" | "permission.v2.replied" | "question.replied" | "question.rejected":
                asks.discard(str(about.get("requestID") or about.get("permissionID")))
                if not asks:
                    runner.note(state=TaskState.RUNNING, reason=None)
            case "session.idle":
                return
            case "session.status" if about.get("status", {}).get("type") == "idle":
                return
    raise Unusable("OpenCode's server ended in the middle of the task; dispatch it again.")


def _show(runner: Runner, heard: Heard, part: dict[str, Any], shown: set[str]) -> None:
    """Parts of the agent's messages, once each when they are whole."""
    id_ = str(part.get("id"))
    whole = bool(part.get("time", {}).get("end")) if part.get("type") == "text" else False
    if part.get("type") == "tool":
        state = part.get("state", {})
        whole = state.get("status") in ("completed", "error")
    if not whole or id_ in shown:
        return
    shown.add(id_)
    if part.get("type") == "text":
        heard.last_message = str(part.get("text", ""))
        runner.log.write(f"{heard.last_message}\n")
    else:
        said = state.get("title") or json.dumps(state.get("input"), ensure_ascii=False)
        runner.log.write(f"→ {part.get('tool')} {' '.join(str(said).split())[:400]}\n")
    runner.heard(heard)


async def _is_over(heard: Heard) -> bool:
    """Whether the latest message is a whole answer; else the session is still at it, or has not begun."""
    messages = await call("GET", f"/session/{heard.session_id}/message?limit=1", None)
    if not messages:
        return False
    info = messages[-1].get("info", {})
    texts = [part.get("text", "") for part in messages[-1].get("parts", []) if part.get("type") == "text"]
    if info.get("role") != "assistant" or not info.get("time", {}).get("completed"):
        return False
    if info.get("error"):
        heard.failure = _reason(info["error"])
    if texts:
        heard.last_message = str(texts[-1])
    return bool(info.get("finish") != "tool-calls")


async def _events(where: str, server: Running | None) -> AsyncGenerator[dict[str, Any], None]:
    """The server's events, over lost connections; each begins with ``server.connected``. They end with the server: one
    that is started after it knows nothing of what was under way."""
    loop = asyncio.get_running_loop()
    for _ in range(TRIES):
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        ended = threading.Event()

        def read(queue: asyncio.Queue[bytes | None] = queue, ended: threading.Event = ended) -> None:
            try:
                for data in events(f"/event{where}", SILENT_SECONDS):
                    if ended.is_set():
                        return
                    loop.call_soon_threadsafe(queue.put_nowait, data)
            except (OSError, HTTPException, Unusable):
                pass  # It is tried again.
            finally:
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(queue.put_nowait, None)

        threading.Thread(target=read, daemon=True).start()
        try:
            while (data := await queue.get()) is not None:
                with contextlib.suppress(ValueError):
                    yield json.loads(data)
        finally:
            ended.set()
        if running(Path.home()) != server:
            return
        await asyncio.sleep(1)


def _session_of(about: dict[str, Any]) -> str | None:
    for place in (about, about.get("info", {}), about.get("part", {})):
        if isinstance(place, dict) and isinstance(found := place.get("sessionID"), str):
            return found
    return None


def _reason(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error or "OpenCode gave no reason.")
    data = error.get("data")
    message = data.get("message") if isinstance(data, dict) else None
    return str(message or error.get("message") or error.get("name") or "OpenCode gave no reason.")


def _question(about: dict[str, Any]) -> str:
    for name in ("title", "permission", "type"):
        if isinstance(found := about.get(name), str):
            patterns = about.get("patterns")
            more = f" {', '.join(map(str, patterns))}" if isinstance(patterns, list) else ""
            return f"{found}{more}?"
    questions = about.get("questions")
    if isinstance(questions, list) and questions and isinstance(questions[0], dict):
        return str(questions[0].get("question", "a question"))
    return "a question"


def _title(folder: Path) -> str:
    with (folder / record.TEXT).open(errors="replace") as file:
        return " ".join(file.read(300).split())[:80]


def _quoted(text: str) -> str:
    return quote(text, safe="")
