"""Settings, as ``config.get`` shows them."""

from typing import Any

from protocol.wire import Wire


class ConfigValue(Wire, frozen=True):
    """One setting. ``source`` is ``default``, ``file`` or a variable's name. Secrets show as ``"***"``."""

    key: str
    value: Any
    source: str


class Config(Wire, frozen=True):
    """Output of ``config.get``."""

    folder: str
    items: list[ConfigValue]


class SetConfig(Wire, frozen=True):
    """Input of ``config.set``. ``value`` is spelt as in a ``PERRY_*`` variable: a list has commas."""

    key: str
    value: str


class UnsetConfig(Wire, frozen=True):
    """Input of ``config.unset``."""

    key: str


class ConfigChange(Wire, frozen=True):
    """Output of both: the value that counts now, and whether the control plane must be started anew for it."""

    key: str
    value: Any
    file: str
    restart: bool
