"""WebSockets to a control plane, with the token and without proxies."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from cli.client import CONNECT_SECONDS, Client
from cli.errors import NotAuthorised

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection as AsyncConnection

NOT_AUTHORISED: Final = 4001
UNKNOWN_TOKEN: Final = (
    "The agent does not accept this token; `perry agent token` on its machine prints its own, give it in PERRY_TOKEN."
)
CLOSE_SECONDS: Final = 0.2
LARGEST_FRAME: Final = 64 << 20


@contextlib.contextmanager
def opened(client: Client, path: str, *, waiting: int | None = 16) -> Iterator[ClientConnection]:
    """A connection to ``path``. CliErrors where the control plane refuses it; OSError and WebSocketException where it
    does not answer.

    ``waiting`` frames are read ahead; None where something else bounds them.
    """
    with contextlib.ExitStack() as stack:
        manager = connect(_url(client, path), legacy=False, max_queue=waiting, **_options(client))
        with _refusals(client):
            socket = stack.enter_context(manager)
        yield socket


@contextlib.asynccontextmanager
async def opened_async(client: Client, path: str) -> "AsyncIterator[AsyncConnection]":
    """The same, for what has many things to do at once; sixteen frames are read ahead."""
    from websockets.asyncio.client import connect as connect_async

    async with contextlib.AsyncExitStack() as stack:
        manager = connect_async(_url(client, path), max_queue=16, **_options(client))
        with _refusals(client):
            socket = await stack.enter_async_context(manager)
        yield socket


def _url(client: Client, path: str) -> str:
    return "ws" + client.target.url.removeprefix("http") + path


def _options(client: Client) -> dict[str, Any]:
    return {
        "additional_headers": client.headers(),
        "proxy": None,
        "open_timeout": CONNECT_SECONDS,
        "close_timeout": CLOSE_SECONDS,
        "max_size": LARGEST_FRAME,
        "compression": None,
    }


@contextlib.contextmanager
def _refusals(client: Client) -> Iterator[None]:
    """What a control plane says instead of opening one, as our errors."""
    try:
        yield
    except InvalidStatus as exc:
        status = exc.response.status_code
        if status == 401:
            raise NotAuthorised(UNKNOWN_TOKEN) from exc
        if status >= 500:
            raise
        raise client.refusal(status, bytes(exc.response.body or b"")) from exc


def is_not_authorised(exc: ConnectionClosed) -> bool:
    """Whether it was closed since the control plane does not accept the token."""
    return exc.rcvd is not None and exc.rcvd.code == NOT_AUTHORISED
