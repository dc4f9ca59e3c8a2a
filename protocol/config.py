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
