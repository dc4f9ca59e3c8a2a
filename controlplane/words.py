"""What came from a workspace, made fit for terminals and prompts. Pure."""

from typing import Final

QUOTED: Final = 300
"""Characters of what came from a workspace that are quoted."""


def clean(text: str) -> str:
    """One line without control characters."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def quoted(text: str | None, limit: int = QUOTED, *, from_end: bool = False) -> str:
    """Somebody else's words: one line, no more than so many characters, and nothing in it ends the quote."""
    # No more than can be shown, before anything else is done with it.
    line = clean((text or "")[-4 * limit :] if from_end else (text or "")[: 4 * limit]).replace("”", '"')
    if len(line) > limit:
        line = "…" + line[1 - limit :] if from_end else line[: limit - 1] + "…"
    return f"“{line}”"
