"""A control plane for the CLI's tests: real HTTP and WebSockets on loopback, made-up workspaces.

It answers what a test has prepared (``answers``), and runs starts from a script that the test controls.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import msgspec
import uvicorn

from controlplane.workspaces import state
from controlplane.workspaces.state import StepId
from protocol.agent import AgentInfo
from protocol.errors import STATUS, ErrorCode, WireError
from protocol.events import Event, Snapshot, WorkspaceChanged
from protocol.health import Check, Health, Readiness
from protocol.sessions import SessionInfo, SessionsFrame, SessionsSnapshot, Subscribe
from protocol.version import API_VERSION, VERSION
from protocol.workspaces import (
    Limits,
    Startup,
    StepStatus,
    TailnetState,
    Workspace,
    WorkspacePorts,
    WorkspaceStatus,
    WorkspaceTailnet,
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9uPbMZ0bG0p2v0o3m5cVJ1x0m1o0kq3m8tVZ5mX1aB"


def workspace(name: str, **changes: Any) -> Workspace:
    """A workspace that runs, changed as wanted."""
    return msgspec.structs.replace(
        Workspace(
            name=name,
            status=WorkspaceStatus.RUNNING,
            created="2026-01-02T03:04:05Z",
            ports=WorkspacePorts(ssh=22001),
            image="perry/workspace-base:latest",
            docker=True,
            limits=Limits(cpus=2, memory=4 << 30, pids=8192),
            tailnet=WorkspaceTailnet(
                status=TailnetState.ONLINE, hostname=name, ips=["100.64.0.3"], dns_name=f"{name}.perry.internal"
            ),
            ssh_host_keys=[HOST_KEY],
        ),
        **changes,
    )


class Answer(msgspec.Struct):
    """An HTTP answer as it stands."""

    status: int
    body: bytes


def refuses(code: ErrorCode, message: str, data: Any = None) -> Answer:
    """An error as the control plane sends it."""
    error = WireError(defined=False, code=code, status=STATUS[code], message=message, data=data)
    return Answer(STATUS[code], b'{"json":' + msgspec.json.encode(error) + b"}")


Frame = Event | SessionsFrame

Prepared = Any
"""A wire value, an :class:`Answer`, or a function of the input that gives one of them."""


class FakeAgent:
    """The server. ``calls`` are the procedures that were called, with their input."""

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.token = "secret"
        self.answers: dict[str, Prepared] = {
            "agent.info": AgentInfo(
                version=VERSION, hostname="box", uptime=4000.0, workspaces_count=0, docker_version="20.10.24"
            )
        }
        self.calls: list[tuple[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.upload_answer = Answer(200, b'{"json":{}}')
        self.health = Answer(200, msgspec.json.encode(Health(ok=True, version=VERSION, api_version=API_VERSION)))
        self.ready = Answer(200, msgspec.json.encode(Readiness(ready=True, checks=[Check(name="docker", ok=True)])))
        self.workspaces: dict[str, Workspace] = {}
        self.subscriptions: list[str] = []
        self.sessions: list[SessionInfo] = []
        self.wanted_messages: list[Subscribe] = []
        self.seq = 0
        self._sockets: list[asyncio.Queue[Frame | None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- what a test does

    def publish(self, changed: Workspace) -> None:
        """Change a workspace, and tell all who follow."""
        self.workspaces[changed.name] = changed
        self.seq += 1
        self._tell(WorkspaceChanged(seq=self.seq, workspace=changed))

    def tell(self, frame: SessionsFrame) -> None:
        """Say something of sessions to all who follow them."""
        self._tell(frame)

    def drop_connections(self) -> None:
        """Break all WebSockets."""
        self._tell(None)

    def wait_for_call(self, procedure: str, seconds: float = 10) -> None:
        """Until the procedure was called."""
        deadline = time.monotonic() + seconds
        while not any(name == procedure for name, _ in self.calls):
            assert time.monotonic() < deadline, f"{procedure} was not called"
            time.sleep(0.01)

    def wait_for_subscriptions(self, count: int, seconds: float = 10) -> None:
        """Until so many WebSockets were opened."""
        deadline = time.monotonic() + seconds
        while len(self.subscriptions) < count:
            assert time.monotonic() < deadline, "nobody subscribed"
            time.sleep(0.01)

    def wait_for_wanted_messages(self, count: int, seconds: float = 10) -> None:
        """Until so often the messages of a session were asked for."""
        deadline = time.monotonic() + seconds
        while len(self.wanted_messages) < count:
            assert time.monotonic() < deadline, "nobody wants a session's messages"
            time.sleep(0.01)

    def _tell(self, event: Frame | None) -> None:
        assert self._loop is not None
        for queue in list(self._sockets):
            self._loop.call_soon_threadsafe(queue.put_nowait, event)

    # --- the server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        headers = {name.decode(): value.decode() for name, value in scope.get("headers", [])}
        authorised = headers.get("authorization") == f"Bearer {self.token}"
        if scope["type"] == "websocket":
            await self._events(scope, receive, send, authorised)
            return
        answer = await self._http(scope["method"], scope["path"], receive, authorised)
        length = str(len(answer.body)).encode()
        await send(
            {"type": "http.response.start", "status": answer.status, "headers": [(b"content-length", length)]},
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def _http(self, method: str, path: str, receive: Receive, authorised: bool) -> Answer:
        if path == "/health":
            return self.health
        if not authorised:
            return refuses(ErrorCode.UNAUTHORIZED, "The token is wrong; `perry agent token` prints it.")
        if path == "/ready":
            return self.ready
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if method == "PUT":
            self.uploads[path.removeprefix("/uploads/")] = body
            return self.upload_answer
        procedure = path.removeprefix("/rpc/").replace("/", ".")
        wanted = msgspec.json.decode(body)["json"]
        self.calls.append((procedure, wanted))
        prepared = self.answers.get(procedure)
        if callable(prepared):
            prepared = prepared(wanted)
        if procedure == "workspaces.list" and prepared is None:
            prepared = list(self.workspaces.values())
        if procedure == "workspaces.get" and prepared is None:
            prepared = self.workspaces.get(wanted["name"]) or refuses(
                ErrorCode.NOT_FOUND, f"There is no workspace named {wanted['name']!r}; `perry list` shows them."
            )
        if prepared is None:
            prepared = refuses(ErrorCode.NOT_FOUND, f"There is no POST {path}; GET /schema lists what there is.")
        if isinstance(prepared, Answer):
            return prepared
        return Answer(200, b'{"json":' + msgspec.json.encode(prepared) + b"}")

    async def _events(self, scope: Scope, receive: Receive, send: Send, authorised: bool) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        if not authorised:
            await send({"type": "websocket.close", "code": 4001})
            return
        queue: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._sockets.append(queue)
        self.subscriptions.append(scope["query_string"].decode())
        first: Frame = Snapshot(epoch="e1", seq=self.seq, workspaces=list(self.workspaces.values()))
        if scope["path"].startswith("/sessions"):
            first = SessionsSnapshot(epoch="e1", seq=self.seq, items=list(self.sessions), more=False)
        await self._send_event(send, first)
        gone = asyncio.ensure_future(self._listen(receive))
        try:
            while True:
                due = asyncio.ensure_future(queue.get())
                await asyncio.wait([gone, due], return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    due.cancel()
                    return
                if (event := due.result()) is None:
                    await send({"type": "websocket.close", "code": 1011})
                    return
                await self._send_event(send, event)
        finally:
            self._sockets.remove(queue)
            gone.cancel()

    async def _listen(self, receive: Receive) -> None:
        """Until the client goes: what it wants to hear of."""
        while (message := await receive())["type"] != "websocket.disconnect":
            self.wanted_messages.append(msgspec.json.decode(message["text"], type=Subscribe))

    async def _send_event(self, send: Send, event: Frame) -> None:
        await send({"type": "websocket.send", "text": msgspec.json.encode(event).decode()})


class Server:
    """Serves one fake agent after the other, at one address: starting a server anew for each test would take long."""

    def __init__(self) -> None:
        self.agent = FakeAgent()
        self.url = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.agent(scope, receive, send)


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server on a free port of loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = Server()
    app.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(
        uvicorn.Config(app, ws="websockets-sansio", lifespan="off", log_level="critical", access_log=False)
    )
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield app
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


# --- starts


def starting(name: str, attempt: int = 1, **changes: Any) -> Workspace:
    """A workspace whose start has just begun."""
    startup = msgspec.structs.replace(state.begun(None), attempt=attempt)
    return workspace(name, status=WorkspaceStatus.CREATING, startup=startup, **changes)


def with_step(of: Workspace, step: StepId, status: StepStatus, detail: str | None = None) -> Workspace:
    """The same, one step further."""
    seconds = 0.25 if status in (StepStatus.DONE, StepStatus.FAILED) else None
    return msgspec.structs.replace(of, startup=state.with_step(_startup(of), step, status, detail, seconds))


def ended(of: Workspace, *, failed: bool = False, error: str | None = None) -> Workspace:
    """The same at its end: it runs, for a clone that failed too."""
    startup = state.ended(_startup(of), failed=failed)
    return msgspec.structs.replace(of, startup=startup, status=WorkspaceStatus.RUNNING, error=error)


def _startup(of: Workspace) -> Startup:
    assert of.startup is not None
    return of.startup
