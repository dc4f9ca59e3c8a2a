"""What came from a workspace, made fit for terminals and prompts. Pure."""

from typing import Final

QUOTED: Final = 300
"""Characters of what came from a workspace that are quoted."""

_HEX: Final = frozenset("0123456789abcdef")


def clean(text: str) -> str:
    """One line without control characters."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def said(text: str) -> str:
    """All that somebody else has said, to follow what says who: one line in quotes, or lines that begin with ``>``.

    So none of them is at the beginning of a line, where those who show it put words of their own: Perry its
    ``[Perry …]``, gateways their ``System:``.
    """
    if "\n" not in text:
        return f" “{_unclosed(text)}”"
    return "\n".join(["", *(f"> {line}" for line in text.split("\n"))])


def quoted(text: str | None, limit: int = QUOTED, *, from_end: bool = False) -> str:
    """Somebody else's words: one line, no more than so many characters, and nothing in it ends the quote."""
    # No more than can be shown, before anything else is done with it.
    line = _unclosed(clean((text or "")[-4 * limit :] if from_end else (text or "")[: 4 * limit]))
    if len(line) > limit:
        line = "…" + line[1 - limit :] if from_end else line[: limit - 1] + "…"
    return f"“{line}”"


def hexadecimal(text: str) -> str:
    """What of it may stand in a commit's name."""
    return "".join(filter(_HEX.__contains__, text))


def _unclosed(line: str) -> str:
    """Without what would begin or end a quote."""
    return line.replace("“", '"').replace("”", '"')
