"""Ids of what the control plane makes: a letter or a word for the kind, and what nobody guesses."""

import secrets
import string
from typing import Final

_LETTERS: Final = string.digits + string.ascii_lowercase


def new_id(kind: str) -> str:
    """``t-0f3k…``: the kind and 12 characters."""
    return f"{kind}-{random_letters(12)}"


def random_letters(count: int) -> str:
    """Digits and small letters."""
    return "".join(secrets.choice(_LETTERS) for _ in range(count))
