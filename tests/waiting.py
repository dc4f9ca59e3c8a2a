"""Waiting in tests for what comes by itself and tells nobody."""

from collections.abc import Callable

import anyio


async def until(condition: Callable[[], object], what: str = "what was waited for", *, seconds: float = 30) -> None:
    """Look until it is so; AssertionError with ``what`` after a time that is long for a busy machine."""
    with anyio.move_on_after(seconds):
        while not condition():  # noqa: ASYNC110 — nobody tells
            await anyio.sleep(0.005)
        return
    raise AssertionError(f"not within {seconds:g} s: {what}")
