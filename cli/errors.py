"""Every way in which a command fails, and the exit code of each.

    CliError            1   it failed; the sentence says why
    ├── Misused         2   an option or an argument is wrong (as click's own usage errors)
    ├── NotReachable    3   no control plane answers
    │   └── Lost        3   it answered, and the connection broke
    ├── Missing         4   there is no such workspace
    ├── Refused         5   it exists, it is busy, or work would be lost
    ├── NotAuthorised   6   no token, a wrong one, or one that may not
    ├── NotReady        7   something has to be done first: Docker started, an image built, a workspace started
    └── Interrupted   130   ctrl-C

What the control plane answers becomes one of these by its code. Each message is one sentence that says what to do. It
goes to stderr; stdout stays as it is.
"""

from typing import IO, Any, Final

import click

from protocol.errors import ErrorCode, WireError

EXIT_CODES: Final[dict[int, str]] = {
    0: "It is done.",
    1: "It failed; the sentence on stderr says why. `perry start`: a step failed (the workspace may run all the same).",
    2: "An option or an argument is wrong.",
    3: "No Perry agent answers, or the connection to it broke.",
    4: "There is no workspace (or other thing) of that name.",
    5: "Refused: it exists already, it is busy, or work would be lost.",
    6: "Not authorised: the token is missing, wrong, or may not.",
    7: "Something has to be done first: Docker started, an image built, a workspace started.",
    130: "Interrupted with ctrl-C.",
}
"""What each exit code means. ``perry exec`` and ``perry ssh`` pass on the exit code of what they ran."""


class CliError(click.ClickException):
    """Base of all. ``code`` and ``data`` are the control plane's, where the error came from there."""

    exit_code = 1

    def __init__(self, message: str, *, code: str | None = None, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the sentence to stderr."""
        from cli.output import error

        error(self.message)


class Misused(CliError):
    """An option or an argument is wrong."""

    exit_code = 2


class NotReachable(CliError):
    """No control plane answers."""

    exit_code = 3


class Lost(NotReachable):
    """The connection broke after it stood: what was asked for may have happened."""


class Missing(CliError):
    """There is no such thing."""

    exit_code = 4


class Refused(CliError):
    """It is busy, or something would be lost."""

    exit_code = 5


class NotAuthorised(CliError):
    """The token is missing, wrong, or may not."""

    exit_code = 6


class NotReady(CliError):
    """Something has to be done first."""

    exit_code = 7


class Interrupted(CliError):
    """ctrl-C."""

    exit_code = 130

    def show(self, file: IO[Any] | None = None) -> None:
        """A word, and not that it is an error: it is what the person wished."""
        from cli.output import clean, note

        note(clean(self.message))


OF_CODE: Final[dict[str, type[CliError]]] = {
    ErrorCode.BAD_REQUEST: Misused,
    ErrorCode.UNAUTHORIZED: NotAuthorised,
    ErrorCode.FORBIDDEN: NotAuthorised,
    ErrorCode.NOT_FOUND: Missing,
    ErrorCode.CONFLICT: Refused,
    ErrorCode.PRECONDITION_FAILED: NotReady,
    ErrorCode.SERVICE_UNAVAILABLE: NotReady,
}


def server_said(error: WireError) -> CliError:
    """The control plane's error, in its own sentence."""
    return OF_CODE.get(error.code, CliError)(error.message, code=error.code, data=error.data)
