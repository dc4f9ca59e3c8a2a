"""Cursors: places in a list or a stream, as clients give them back. Pure."""

from controlplane.errors import InvalidInput


def number(text: str | None) -> int | None:
    """The number that it is; None where it is none, or one that nobody was given."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 19 else None


def before(cursor: str | None, procedure: str) -> int | None:
    """What the next page of a list that is told newest first comes before; None for the first page."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit()) or (found := int(cursor)) >= 1 << 62:
        raise InvalidInput(f"That cursor is none of `{procedure}`; begin without one.")
    return found
