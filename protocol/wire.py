"""The base of every struct on the wire, and the names that all of them share."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Self

import msgspec

WORKSPACE_NAME: Final = r"^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$"
"""A DNS label that starts with a letter: an all-digit name would be read as an address."""

RESERVED_NAMES: Final = frozenset({"perry", "localhost"})

WORKSPACE_NAME_PATTERN: Final = re.compile(WORKSPACE_NAME)

DEFAULT_PORT: Final = 7391
"""TCP port of the control plane."""


Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time that says its zone, of somebody who may be hostile: one that does not cannot be compared."""


class Told(StrEnum):
    """A word that a control plane says, of which a newer one may know more: one that we do not know stays as it came.

    For answers only. What a client asks for is a plain enum, so that a misspelt word is refused.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self:
        unknown = str.__new__(cls, value)
        unknown._name_ = unknown._value_ = str(value)
        return unknown


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=False):
    """A value on the wire. Unknown fields are ignored, so that an older program reads a newer one's answers.

    ``omit_defaults`` leaves out what is absent; so a field that a client may rely on has no default.
    """
