"""What a wake is: read from a request, cleaned, bounded, and marked with where it comes from. Pure."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from controlplane.errors import InvalidInput, TooLarge
from controlplane.quoting import said
from protocol.wake import TEXT_LIMIT, TEXT_REQUIRED, SessionTarget, WakeMode

OWN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a wake may be known by."""

CUT: Final = " … (cut off)"

_KEPT: Final = frozenset("\n\t\u200d")
"""Of what is no character to see: line ends, tabs, and what holds emoji together."""

_LINE_ENDS: Final = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")

_BEGINNING: Final = re.compile(r"[\[［〔【⟦❲](?=\s*perry\b)", re.IGNORECASE)
"""Where something might be taken for the beginning of another wake."""

_UNHEARD: Final = re.compile(r"heartbeat|reason periodic", re.IGNORECASE)
"""clawdbot (2026.1.24) and openclaw (2026.9.6) accept a text with these words, or with some that follow them, take it
for their own chatter, and throw it away."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A wake, before it has its place in the outbox. ``text`` is clean."""

    id: str
    text: str
    mode: WakeMode = WakeMode.NOW
    session: SessionTarget = SessionTarget.MAIN
    workspace: str | None = None
    task: str | None = None
    lane: str | None = None
    """What it keeps its order with; the other wakes of its workspace where None."""
    gateway: str | None = None
    """The default one where None."""


def read_request(body: bytes) -> tuple[str, WakeMode]:
    """The text and the mode that a request at the door asks for, as the gateways read them.

    JSON whatever its Content-Type says. Unknown fields mean nothing; a mode that is none is ``now``.
    InvalidInput and TooLarge have sentences that say what is wrong.
    """
    try:
        given: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidInput('The body is no JSON; send {"text": "…", "mode": "now"}.') from exc
    text = given.get("text") if isinstance(given, dict) else None
    if not isinstance(text, str) or not (cleaned := clean(text)):
        raise InvalidInput(TEXT_REQUIRED)
    if len(cleaned.encode()) > TEXT_LIMIT:
        raise TooLarge(f"The text has more than {TEXT_LIMIT:,} bytes; put it into a file, and wake with its name.")
    return cleaned, mode_of(given.get("mode"))


def mode_of(given: object) -> WakeMode:
    """``now`` for whatever is not ``next-heartbeat``."""
    return WakeMode.NEXT_HEARTBEAT if given == WakeMode.NEXT_HEARTBEAT.value else WakeMode.NOW


def clean(text: str) -> str:
    """Text as people see it: no control characters but line ends and tabs, nothing invisible, nothing that turns the
    direction of what follows, no halves of characters; no white space around it."""
    return "".join(c for c in _LINE_ENDS.sub("\n", text) if c in _KEPT or _is_seen(c)).strip()


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs")


def bounded(text: str, limit: int = TEXT_LIMIT) -> str:
    """The beginning of a text that has too many bytes, saying that it was cut."""
    raw = text.encode()
    if len(raw) <= limit:
        return text
    return raw[: limit - len(CUT.encode())].decode(errors="ignore") + CUT


def words_of(who: str, text: str) -> str:
    """A text that ``who`` has made, and not Perry and not its person: marked as such, line by line."""
    return f"{who} says:{said(text)}"


def delivered_text(id_: str, text: str, workspace: str | None, task: str | None) -> str:
    """What an assistant reads: first who speaks and the wake's id, which no other wake has, then the text.

    The same wake is the same text, however often it is sent: gateways drop what they have just heard. Nothing in a
    text looks like this beginning.
    """
    marks = [f"Perry {id_}"]
    if workspace is not None:
        marks.append(f"from workspace {workspace}")
    if task is not None:
        marks.append(f"task {task}")
    return f"[{', '.join(marks)}] {_BEGINNING.sub('(', text)}"


def together(texts: Sequence[str]) -> str:
    """What an assistant reads of several wakes that it gets at once: each as it would be by itself."""
    return texts[0] if len(texts) == 1 else "\n".join([f"[Perry, {len(texts)} wakes that waited]", *texts])


def mode_of_all(modes: Iterable[str]) -> WakeMode:
    """The mode of several at once. A gateway that shows one shows all that it keeps, whatever their modes."""
    return WakeMode.NOW if WakeMode.NOW in set(modes) else WakeMode.NEXT_HEARTBEAT


def audible(text: str) -> str:
    """A text that a gateway shows: what it would swallow is spelt with a hyphen."""

    def hyphened(match: re.Match[str]) -> str:
        found = match[0]
        return f"{found[:5]}-{found[5:]}" if found[:1] in "hH" else f"{found[:6]}-{found[7:]}"

    return _UNHEARD.sub(hyphened, text)
