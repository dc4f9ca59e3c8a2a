"""What is brought into workspaces, and the secrets that ``config.json`` names."""

from protocol.wire import Wire


class SyncWorkspace(Wire, frozen=True):
    """Input of ``workspaces.sync``."""

    name: str


class Synced(Wire, frozen=True):
    """Output of ``workspaces.sync``. ``kept`` and ``problems`` are sentences; paths begin with ``~/``.

    ``worker`` is the version of the worker that was brought; absent where the right one ran already.
    """

    name: str
    brought: list[str]
    removed: list[str]
    kept: list[str]
    problems: list[str]
    seconds: float
    worker: str | None = None


class BroughtItem(Wire, frozen=True):
    """One thing that workspaces are given: where it goes, and what it comes from. Never its content."""

    path: str
    setting: str
    source: str
    present: bool


class Brought(Wire, frozen=True):
    """Output of ``credentials.list``."""

    items: list[BroughtItem]
    problems: list[str]


class SetSecret(Wire, frozen=True):
    """Input of ``secrets.set``."""

    name: str
    value: str


class SecretRef(Wire, frozen=True):
    """Input of ``secrets.remove``."""

    name: str


class SecretNames(Wire, frozen=True):
    """Output of ``secrets.list``."""

    items: list[str]
