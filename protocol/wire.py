"""The base of every struct on the wire, and the names that all of them share."""

import re
from typing import Final

import msgspec

WORKSPACE_NAME: Final = r"^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$"
"""A DNS label that starts with a letter: an all-digit name would be read as an address."""

RESERVED_NAMES: Final = frozenset({"perry", "localhost"})

WORKSPACE_NAME_PATTERN: Final = re.compile(WORKSPACE_NAME)

DEFAULT_PORT: Final = 7391
"""TCP port of the control plane."""


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=False):
    """A value on the wire. Unknown fields are ignored, so that an older program reads a newer one's answers.

    ``omit_defaults`` leaves out what is absent; so a field that a client may rely on has no default.
    """
