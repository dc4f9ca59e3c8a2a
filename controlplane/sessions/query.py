"""What people type to search, as FTS5 understands it; and which words of a message are searched.

Values in, values out.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from controlplane.errors import InvalidInput
from protocol.sessions import Block, MessageRole, Text, Thinking, ToolCall

WORDS: Final = 32

PREFIX: Final = 2
"""Letters that the beginning of a word has at least: with one, half of all that there is would be looked through."""

TOOL_TEXT: Final = 16_384
"""Characters of what a tool was given or gave back that are searched: the first and the last half of them."""

BEGIN: Final = "\ue000"
END: Final = "\ue001"
"""Around the words in a snippet. What is indexed has none of them."""

_PIECE = re.compile(r'"([^"]*)"?|([^\s"]+)')

_blocks: msgspec.json.Decoder[list[Block]] = msgspec.json.Decoder(list[Block])

_NO_MARKS = str.maketrans({BEGIN: "�", END: "�"})


def expression(query: str) -> str:
    """All words; ``"a phrase"``; a word with ``*`` at its end for a beginning. InvalidInput says what is wrong."""
    terms: list[str] = []
    for phrase, word in _PIECE.findall(query):
        text = phrase or word.rstrip("*")
        if not any(map(_counts, text)):
            continue  # Punctuation alone is in no index.
        quoted = '"' + text.replace('"', '""').replace("\0", " ") + '"'
        if word.endswith("*"):
            # What counts is the last of the words that the text falls into.
            last = re.split(r"[\W_]+", word.rstrip("*"))[-1]
            if len(last) < PREFIX:
                raise InvalidInput(f"The beginning {word!r} is too short; give at least {PREFIX} letters before the *.")
            quoted += " *"
        terms.append(quoted)
    if not terms:
        raise InvalidInput("There is no word in what you search for; give at least one.")
    if len(terms) > WORDS:
        raise InvalidInput(f"These are {len(terms)} words; search for at most {WORDS}, or for a phrase in quotes.")
    return " AND ".join(terms)


def _counts(character: str) -> bool:
    """Whether the tokenizer takes it for a part of a word."""
    return unicodedata.category(character)[0] in "LN"


def said(role: str, blocks: str) -> str:
    """The words of a person or a model in a message, from its JSON."""
    return said_of(role, _blocks.decode(blocks))


def tools(role: str, blocks: str) -> str:
    """The words that tools were given and gave back in a message, from its JSON."""
    return tools_of(role, _blocks.decode(blocks))


def words(role: str, blocks: str) -> tuple[str, str]:
    """Both, said and tools, from a message's JSON."""
    found = _blocks.decode(blocks)
    return said_of(role, found), tools_of(role, found)


def said_of(role: str, blocks: Sequence[Block]) -> str:
    if role == MessageRole.TOOL:
        return ""
    return _joined(block.text for block in blocks if isinstance(block, Text | Thinking))


def tools_of(role: str, blocks: Sequence[Block]) -> str:
    found: list[str] = []
    for block in blocks:
        if isinstance(block, Text | Thinking):
            if role == MessageRole.TOOL:
                found.append(_ends(block.text))
        elif isinstance(block, ToolCall):
            # A line break in JSON would stick to the word after it.
            found += (block.name, _ends(block.input).replace("\\n", "\n"))
        else:
            found.append(_ends(block.output))
    return _joined(found)


def _ends(text: str) -> str:
    """What a tool gives is long, and worth the less the further it is from its ends."""
    return text if len(text) <= TOOL_TEXT else f"{text[: TOOL_TEXT // 2]}\n…\n{text[-TOOL_TEXT // 2 :]}"


def _joined(texts: Iterable[str]) -> str:
    text = "\n".join(texts)
    return text.translate(_NO_MARKS) if BEGIN in text or END in text else text
