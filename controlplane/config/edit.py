"""The text of ``config.json`` with one value changed. Pure."""

import json
import re
from collections.abc import Sequence
from typing import Any

_INDENT = re.compile(r"\n([ \t]+)\S")

DEFAULT_INDENT = "  "


def with_value(text: str, path: Sequence[str], value: Any) -> str:
    """The text with the value at the path. ValueError where an object would have to be where there is something else.

    Other keys, their order and the indentation stay as they were.
    """
    raw = _parsed(text)
    below = raw
    for part in path[:-1]:
        below = below.setdefault(part, {})
        if not isinstance(below, dict):
            raise ValueError(f"{part} must be an object")
    below[path[-1]] = value
    return _written(raw, text)


def without(text: str, path: Sequence[str]) -> str:
    """The text without the value at the path, and without objects that are empty then."""
    raw = _parsed(text)
    above: list[dict[str, Any]] = [raw]
    for part in path[:-1]:
        below = above[-1].get(part)
        if not isinstance(below, dict):
            return text
        above.append(below)
    if path[-1] not in above[-1]:
        return text
    for part, holder in zip(reversed(path), reversed(above), strict=True):
        del holder[part]
        if holder:
            break
    return _written(raw, text)


def _parsed(text: str) -> dict[str, Any]:
    raw = json.loads(text) if text.strip() else {}
    if not isinstance(raw, dict):
        raise ValueError("it is no JSON object")
    return raw


def _written(raw: dict[str, Any], before: str) -> str:
    found = _INDENT.search(before)
    on_one_line = found is None and before.strip() not in ("", "{}")
    indent = None if on_one_line else found[1] if found else DEFAULT_INDENT
    return json.dumps(raw, indent=indent, ensure_ascii=False) + "\n"
