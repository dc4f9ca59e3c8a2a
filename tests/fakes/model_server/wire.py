"""What the dialects have in common."""

import re
import secrets
from typing import Any

from .script import Answer, Call, Say, Think, Wait

USAGE_IN = 120
"""Tokens that each request is said to have had."""
Event = tuple[str | None, dict[str, Any] | str] | Wait
"""One server-sent event: its name, where the dialect has names, and its data. Or a silence."""


def pieces(text: str) -> list[str]:
    """The text in the pieces that it is streamed in: words."""
    return re.findall(r"\S+\s*|\s+", text) or [text]


def identifier(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"


def is_human(text: str) -> bool:
    """Whether a person said it: agents put what they add themselves into tags."""
    return bool(text.strip()) and not text.lstrip().startswith(("<", "# AGENTS.md"))


def usage_of(answer: Answer) -> int:
    """Tokens of an answer: its words."""
    words = [part.text for part in answer if isinstance(part, Say | Think)]
    return sum(len(pieces(text)) for text in words) + 10 * sum(isinstance(part, Call) for part in answer)
