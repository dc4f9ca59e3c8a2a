"""The one line that a workspace says at each of its boots (images/workspace): that home is ready, and its host key.

What a workspace prints is not trusted, and neither is what its commands answer; a host key is what it says it is.
"""

import contextlib
import re
from collections.abc import AsyncGenerator
from typing import cast

import anyio

from controlplane.errors import EngineError
from controlplane.ports import Engine

GREETING = "perry: host key "
LINES_READ = 200
"""An image of one's own may say other things before."""

_KEY = re.compile(r"[a-z0-9@.-]{1,64} [A-Za-z0-9+/]{8,2048}={0,2}")


class Greeting:
    """``over`` is set when it has come, or when none will come; then ``host_key`` is None."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.host_key: str | None = None

    async def hear(self, engine: Engine, container: str) -> None:
        """Listen to a container that has just been started."""
        try:
            with contextlib.suppress(EngineError):
                self.host_key = await _heard(engine, container)
        finally:
            self.over.set()


async def _heard(engine: Engine, container: str) -> str | None:
    lines = cast("AsyncGenerator[str]", engine.follow_stdout(container))
    left = LINES_READ
    async with contextlib.aclosing(lines):
        async for line in lines:
            if line.startswith(GREETING):
                return host_key(line.removeprefix(GREETING))
            left -= 1
            if not left:
                return None
    return None


def host_key(text: str) -> str | None:
    """The key of a line of a public key file, without its comment; None where there is none."""
    key = " ".join(text.split()[:2])
    return key if _KEY.fullmatch(key) else None
