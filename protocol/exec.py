"""``/exec/<name>``: one command in a workspace, over a WebSocket of its own.

Binary frames carry bytes, after one byte that says of which stream (:class:`Stream`). Text frames are control, as the
structs below. The client begins with :class:`Run` (after an AuthFrame, where it needs one); the control plane says
:class:`Started`, and at last :class:`Exited` or :class:`Failed`, then closes.

Neither side sends more than :data:`WINDOW` bytes of a direction (stdin; stdout and stderr together) that the other has
not reported as :class:`Taken`. So a reader that stops holds up the writer and nothing else: signals, and the end of the
connection, still get through.
"""

from enum import IntEnum, StrEnum
from typing import Annotated, Any, Final

import msgspec

from protocol.wire import Wire

WINDOW: Final = 1 << 20
"""Bytes on their way in one direction."""

FRAME_LIMIT: Final = 1 << 16
"""Bytes of a stream in one binary frame, at most."""

SIZE_LIMIT: Final = 10_000

STOPPED: Final = 1001
FAILED_TO_START: Final = 1011
BROKEN_RULES: Final = 1008
"""Close codes besides 1000 (it has ended) and 4001 (not authorised)."""


class Stream(IntEnum):
    """The first byte of a binary frame."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2


class ExecSignal(StrEnum):
    """Signals that a command can be sent, as it is in ``kill -s``."""

    HUP = "HUP"
    INT = "INT"
    QUIT = "QUIT"
    TERM = "TERM"
    KILL = "KILL"
    USR1 = "USR1"
    USR2 = "USR2"
    CONT = "CONT"


_Cells = Annotated[int, msgspec.Meta(ge=1, le=SIZE_LIMIT)]


class TerminalSize(Wire, frozen=True):
    """A terminal, in characters. ``term`` is its kind, as in the variable TERM."""

    columns: _Cells
    rows: _Cells
    term: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}$")] = "xterm-256color"


class Run(Wire, frozen=True, tag="run", tag_field="type"):
    """What to run, as user ``workspace``; no shell sees it.

    ``cwd`` is a path, from the project folder on where it is relative. With ``tty`` the command has a terminal, and
    stderr comes with stdout.
    """

    command: Annotated[list[str], msgspec.Meta(min_length=1)]
    cwd: str | None = None
    tty: TerminalSize | None = None


class EndInput(Wire, frozen=True, tag="endInput", tag_field="type"):
    """stdin ends here. A command with a terminal has none to end: it is sent what ctrl-D types."""


class SendSignal(Wire, frozen=True, tag="signal", tag_field="type"):
    """A signal to the command's process group."""

    signal: ExecSignal


class Resize(Wire, frozen=True, tag="resize", tag_field="type"):
    """The terminal has another size now."""

    columns: _Cells
    rows: _Cells


class Taken(Wire, frozen=True, tag="taken", tag_field="type"):
    """So many more bytes have been taken: of output where the client says it, of stdin where the control plane does."""

    bytes: Annotated[int, msgspec.Meta(ge=1, le=WINDOW)]


class Started(Wire, frozen=True, tag="started", tag_field="type"):
    """The command runs."""


class Exited(Wire, frozen=True, tag="exited", tag_field="type"):
    """The command has ended, and this is all of its output. ``code`` is 128 and more after a signal.

    ``message`` says why there was nothing to run (127 and 126).
    """

    code: int
    message: str | None = None


class Failed(Wire, frozen=True, tag="failed", tag_field="type"):
    """It could not be run, or not to its end. As :class:`~protocol.errors.WireError`."""

    code: str
    status: int
    message: str
    data: Any = None


ClientFrame = Run | EndInput | SendSignal | Resize | Taken
ServerFrame = Started | Taken | Exited | Failed

client_frames: msgspec.json.Decoder[ClientFrame] = msgspec.json.Decoder(ClientFrame)
server_frames: msgspec.json.Decoder[ServerFrame] = msgspec.json.Decoder(ServerFrame)
