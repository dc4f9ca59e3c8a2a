"""Answers questions, one kind by one handler. A handler that fails is an answer too: the stream goes on."""

import asyncio
import logging
from collections.abc import Iterable

import msgspec

from protocol.worker import FRAME_LIMIT, Answer, Ask, Refused, Result
from worker.ports import Handler, Part, RequestRefused

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Questions of one control plane that are answered side by side: more than the pages that it asks for at once, so that
nothing else waits for those."""

SECONDS = 120.0
"""How long an answer may take."""


class Requests:
    """Every question that some part answers."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._handlers: dict[type, Handler] = {}
        for part in parts:
            self._handlers.update(part.handlers())

    async def answer(self, ask: Ask) -> bytes:
        """The answer, encoded; never larger than a frame may be."""
        encoded = msgspec.json.encode(Answer(id=ask.id, result=await self._result(ask)))
        if len(encoded) > FRAME_LIMIT:
            log.warning("an answer to %s of %d bytes is not sent", type(ask.request).__name__, len(encoded))
            return refusal(ask.id, "failed", "The answer is larger than one answer may be.")
        return encoded

    async def _result(self, ask: Ask) -> Result:
        handler = self._handlers.get(type(ask.request))
        if handler is None:
            return Refused(code="unknown", message="This worker does not know that request; `perry sync` renews it.")
        try:
            async with asyncio.timeout(SECONDS):
                return await handler(ask.request)
        except RequestRefused as exc:
            return Refused(code=exc.code, message=exc.message)
        except TimeoutError:
            return Refused(code="failed", message=f"The worker had no answer within {SECONDS:g} s.")
        except Exception:
            # A bug in one handler, or a store as nobody has seen it yet, must not end what all others are told by.
            log.exception("%s could not be answered", type(ask.request).__name__)
            return Refused(code="failed", message="The worker could not answer; `perry logs` has the reason.")


def refusal(id_: int, code: str, message: str) -> bytes:
    """An encoded refusal."""
    return msgspec.json.encode(Answer(id=id_, result=Refused(code=code, message=message)))
