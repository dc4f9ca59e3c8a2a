"""A page of each of several sessions in one answer: many small ones cost little but the asking."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from protocol.sessions import Message
from protocol.worker import Page, Refused
from worker.ports import RequestRefused, SessionMissing
from worker.sessions.agent import CodingAgent, Found, NotPossible
from worker.sessions.blocks import weight

SECONDS: Final = 0.1
"""After which no further session is begun: others wait."""

ENOUGH: Final = 0.75
"""Of the limit: a further session would likely not fit as a whole, and would be asked for twice."""

_PAGE = 2_000
_MESSAGE = 200
"""Bytes that a page and a message count for beside their content."""


class Wanted(msgspec.Struct, frozen=True):
    """A session to be read from ``cursor`` on; ``found`` is None where there is none of that id."""

    agent: CodingAgent | None
    name: str
    session_id: str
    found: Found | None
    cursor: str | None


def read(wanted: Sequence[Wanted], limit: int, missing: Callable[[str, Found], None]) -> list[Page | Refused]:
    """The first of them, as many as fit into ``limit`` bytes, and one in any case. Blocks; for a thread.

    ``missing`` hears of each whose file is gone.
    """
    pages: list[Page | Refused] = []
    until, room = time.monotonic() + SECONDS, float(limit)
    for each in wanted:
        if each.agent is None or each.found is None:
            pages.append(_refused(SessionMissing(each.name, each.session_id)))
            continue
        try:
            page = each.agent.read(each.found, each.cursor, max(1, int(room)))
        except (NotPossible, OSError) as error:
            if isinstance(error, FileNotFoundError):
                missing(each.name, each.found)
            pages.append(_refused(refusal(each.name, each.found, error)))
            continue
        pages.append(page)
        room -= _PAGE + sum(map(_size, page.messages))
        if room < (1 - ENOUGH) * limit or time.monotonic() > until:
            break
    return pages


def refusal(agent: str, found: Found, error: NotPossible | OSError) -> RequestRefused:
    """What is said of a session that cannot be used."""
    if isinstance(error, FileNotFoundError):
        return SessionMissing(agent, found.session_id)
    if isinstance(error, NotPossible):
        return RequestRefused(str(error))
    return RequestRefused(f"{found.key!r} cannot be used: {error.strerror or error}.")


def _refused(why: RequestRefused) -> Refused:
    return Refused(code=why.code, message=why.message)


def _size(message: Message) -> int:
    return _MESSAGE + sum(map(weight, message.blocks))
