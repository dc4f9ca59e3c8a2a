"""Every error that a part of the control plane raises on purpose.

    PerryError                     code on the wire
    ├── InvalidInput               BAD_REQUEST            the caller can mend it by asking otherwise
    ├── NotAuthenticated           UNAUTHORIZED           no identity, or a wrong token
    ├── NotAllowed                 FORBIDDEN              an identity that may not
    ├── NotFound                   NOT_FOUND
    ├── Conflict                   CONFLICT               it exists, it is busy, or work would be lost
    ├── TooLarge                   PAYLOAD_TOO_LARGE
    ├── OutOfSpace                 INSUFFICIENT_STORAGE   no space is left in the config folder
    ├── NotReady                   PRECONDITION_FAILED    something must be done first (an image built …)
    ├── TookTooLong                TIMEOUT
    ├── TooMany                    TOO_MANY_REQUESTS      as many as are taken; ``data.retryAfter`` is in seconds
    ├── StepFailed                 INTERNAL_SERVER_ERROR  a step of a start failed; the message says which and why
    │   └── CloneFailed            BAD_REQUEST            git's own words
    ├── EngineError                BAD_GATEWAY            Docker refused or failed
    │   ├── EngineUnavailable      SERVICE_UNAVAILABLE    Docker does not answer
    │   ├── EngineOutOfSpace       INSUFFICIENT_STORAGE
    │   ├── ImageMissing           PRECONDITION_FAILED
    │   ├── EngineConflict         CONFLICT               the name, address or port is taken
    │   └── NoTunDevice            PRECONDITION_FAILED
    ├── TailnetError               BAD_GATEWAY            the coordinator refused or failed
    │   ├── TailnetUnavailable     SERVICE_UNAVAILABLE    the coordinator does not answer
    │   ├── CredentialRefused      PRECONDITION_FAILED    its credential is missing, readable by others, or may not
    │   └── TailnetNameTaken       CONFLICT
    ├── WorkerError                BAD_GATEWAY            a workspace's worker refused, failed or broke the rules
    │   ├── WorkerUnavailable      SERVICE_UNAVAILABLE    it is not there, or its stream broke
    │   ├── WorkerRefusesSecret    BAD_GATEWAY            it was given another secret, or somebody else is there
    │   └── WorkerBroke            BAD_GATEWAY            what it sent is out of bounds
    └── StartupError               (never on the wire)    the control plane cannot run; ends the process with a sentence
        ├── SettingsError
        ├── StateError             state.db is corrupt or newer than this program
        └── AlreadyRunning         another control plane holds the folder

Each message is one sentence that says what to do. Services raise these; only `problems` turns them into HTTP.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from protocol.errors import ErrorCode


class PerryError(Exception):
    """Base of all. ``message`` is shown to people as it stands; ``data`` (a wire struct or JSON) is for programs."""

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_SERVER_ERROR

    def __init__(self, message: str, *, data: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class InvalidInput(PerryError):
    """The request itself is wrong."""

    code = ErrorCode.BAD_REQUEST


class NotAuthenticated(PerryError):
    """Nobody that we know."""

    code = ErrorCode.UNAUTHORIZED


class NotAllowed(PerryError):
    """Somebody that we know, who may not."""

    code = ErrorCode.FORBIDDEN


class NotFound(PerryError):
    """There is no such thing."""

    code = ErrorCode.NOT_FOUND


class Conflict(PerryError):
    """It exists already, is busy, or something of the user's would be lost."""

    code = ErrorCode.CONFLICT


class TooLarge(PerryError):
    """A body above its bound."""

    code = ErrorCode.PAYLOAD_TOO_LARGE


class OutOfSpace(PerryError):
    """No space is left in the config folder."""

    code = ErrorCode.INSUFFICIENT_STORAGE


class NotReady(PerryError):
    """Something has to be done first; the message says what."""

    code = ErrorCode.PRECONDITION_FAILED


class TookTooLong(PerryError):
    """A bound on time was reached."""

    code = ErrorCode.TIMEOUT


class TooMany(PerryError):
    """As many as are taken for now; ``data`` says when to try again."""

    code = ErrorCode.TOO_MANY_REQUESTS


class StepFailed(PerryError):
    """A step of a start failed."""


class CloneFailed(StepFailed):
    """git could not clone; the message has git's own words."""

    code = ErrorCode.BAD_REQUEST


class EngineError(PerryError):
    """Docker refused, in its own words."""

    code = ErrorCode.BAD_GATEWAY


class EngineUnavailable(EngineError):
    """Docker does not answer."""

    code = ErrorCode.SERVICE_UNAVAILABLE


class EngineOutOfSpace(EngineError):
    """No space is left where Docker stores things."""

    code = ErrorCode.INSUFFICIENT_STORAGE


class ImageMissing(EngineError):
    """An image is not there, and must be built."""

    code = ErrorCode.PRECONDITION_FAILED


class EngineConflict(EngineError):
    """A name, an address or a port is taken."""

    code = ErrorCode.CONFLICT


class ContainerStuck(EngineError):
    """Docker was stopped or killed in the midst of a container's start or end, and never starts that one again."""


class NoTunDevice(EngineError):
    """The machine has no /dev/net/tun for containers."""

    code = ErrorCode.PRECONDITION_FAILED


class TailnetError(PerryError):
    """The coordinator refused, in its own words."""

    code = ErrorCode.BAD_GATEWAY


class TailnetUnavailable(TailnetError):
    """The coordinator does not answer."""

    code = ErrorCode.SERVICE_UNAVAILABLE


class CredentialRefused(TailnetError):
    """The credential for the coordinator is missing, unsafe, wrong, has expired, or lacks a right."""

    code = ErrorCode.PRECONDITION_FAILED


class TailnetNameTaken(TailnetError):
    """Another device of the tailnet has this name."""

    code = ErrorCode.CONFLICT


class WorkerError(PerryError):
    """A workspace's worker refused, failed or broke the rules."""

    code = ErrorCode.BAD_GATEWAY


class WorkerUnavailable(WorkerError):
    """A workspace's worker is not there, or its stream broke."""

    code = ErrorCode.SERVICE_UNAVAILABLE


class WorkerRefusesSecret(WorkerError):
    """The worker has another secret than ours."""


class WorkerBroke(WorkerError):
    """What a worker sent is out of bounds."""


class StartupError(PerryError):
    """The control plane cannot run."""


class SettingsError(StartupError):
    """config.json or a PERRY_* variable is wrong; the message names it."""


class StateError(StartupError):
    """state.db cannot be used."""


class AlreadyRunning(StartupError):
    """Another control plane holds this folder."""


@contextlib.asynccontextmanager
async def first_error() -> AsyncIterator[None]:
    """Around a task group: raise the first of our errors in it as itself."""
    try:
        yield
    except* PerryError as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
