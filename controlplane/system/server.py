"""The HTTP server, which ends gracefully: WebSockets are closed with 1001, running requests get time to finish."""

import contextlib
import os
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

import anyio
import uvicorn
from anyio.abc import TaskStatus

from controlplane.asgi import App
from controlplane.errors import StartupError
from controlplane.system.requests import Requests

GRACE: Final = 10.0
"""Seconds that running requests have after the stop."""

CONTROL_SOCKET: Final = "control.sock"

OUT_FOLDER: Final = "out"
"""In the same folder: what the gateway may write to, for its own socket."""

_FRAME_LIMIT = 1 << 20
_LAST_WORDS = 2.0


def listen(host: str, port: int) -> socket.socket:
    """A TCP socket there; 0 is any free port. StartupError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol by name: only then asyncio switches off Nagle's algorithm, which holds back the second part of
    # an answer on a connection that was used before, by 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as exc:
        listener.close()
        raise StartupError(
            f"{host}:{port} cannot be listened on ({exc.strerror}); free it, or choose others with PERRY_HOST and "
            "PERRY_PORT."
        ) from exc
    return listener


def listen_in(folder: Path) -> socket.socket:
    """A unix socket ``control.sock`` in a folder that its owner alone may enter, as is ``out`` in there. StartupError
    where it cannot be had.

    One that an earlier process left is replaced: the lock on the config folder says that it serves nobody.
    """
    file = folder / CONTROL_SOCKET
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # By the handle: it is this folder that is made private and used, also where its path is long.
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(handle, 0o700)
            (folder / OUT_FOLDER).mkdir(mode=0o700, exist_ok=True)
            file.unlink(missing_ok=True)
            listener.bind(f"/proc/self/fd/{handle}/{CONTROL_SOCKET}")
            file.chmod(0o600)
        finally:
            os.close(handle)
        listener.listen(128)
    except OSError as exc:
        listener.close()
        raise StartupError(
            f"{file}, on which the gateway reaches the control plane, cannot be made ({exc.strerror}); mend that "
            "folder, or name another one on an ordinary file system with PERRY_CONFIG_DIR."
        ) from exc
    return listener


async def serve(
    app: App,
    listener: socket.socket,
    *,
    requests: Requests,
    stop: anyio.Event,
    before_end: Callable[[], None],
    grace: float = GRACE,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``stop`` is set, then end within about ``grace`` seconds. Signals are the caller's business.

    ``before_end`` is called first, to end what would go on for ever (the event streams). What then still runs after
    ``grace`` seconds is answered with SERVICE_UNAVAILABLE. ``task_status`` is told when requests are answered.
    """
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="none",
            http="h11",
            ws="websockets-sansio",
            ws_max_size=_FRAME_LIMIT,
            ws_per_message_deflate=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=int(grace + _LAST_WORDS) + 1,
        ),
        task_status,
    )
    async with anyio.create_task_group() as group:

        async def end() -> None:
            await stop.wait()
            before_end()
            # uvicorn closes WebSockets with a code of its own; ours get a moment to say 1001 first.
            await anyio.sleep(0.05)
            server.should_exit = True
            await anyio.sleep(grace)
            requests.end()

        group.start_soon(end)
        await server.serve(sockets=[listener])
        group.cancel_scope.cancel()


class _Server(uvicorn.Server):
    """uvicorn that says when it has started, and leaves signals alone: the process is not its own."""

    def __init__(self, config: uvicorn.Config, task_status: TaskStatus[None]) -> None:
        super().__init__(config)
        self._task_status = task_status

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._task_status.started()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
