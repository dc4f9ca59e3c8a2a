"""The base of every object of ``config.json``."""

import msgspec


class Section(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One object of ``config.json``."""
