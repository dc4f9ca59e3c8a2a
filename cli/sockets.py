"""WebSockets to a control plane, with the token and without proxies."""

import contextlib
from collections.abc import Iterator
from typing import Final

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from cli.client import CONNECT_SECONDS, Client
from cli.errors import NotAuthorised

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
        manager = connect(
            "ws" + client.target.url.removeprefix("http") + path,
            legacy=False,
            additional_headers=client.headers(),
            proxy=None,
            open_timeout=CONNECT_SECONDS,
            close_timeout=CLOSE_SECONDS,
            max_size=LARGEST_FRAME,
            max_queue=waiting,
            compression=None,
        )
        try:
            socket = stack.enter_context(manager)
        except InvalidStatus as exc:
            status = exc.response.status_code
            if status == 401:
                raise NotAuthorised(UNKNOWN_TOKEN) from exc
            if status >= 500:
                raise
            raise client.refusal(status, bytes(exc.response.body or b"")) from exc
        yield socket


def is_not_authorised(exc: ConnectionClosed) -> bool:
    """Whether it was closed since the control plane does not accept the token."""
    return exc.rcvd is not None and exc.rcvd.code == NOT_AUTHORISED
