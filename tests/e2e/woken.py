"""Whoever is woken, on this machine, for tests that are not asynchronous."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from tests.fakes import wake_gateway


class Gateway:
    """A gateway that takes every wake, and remembers it. ``shown`` is what its person sees: each wake once."""

    def __init__(self) -> None:
        self._fake = wake_gateway.Gateway()

    @property
    def port(self) -> int:
        return self._fake.port

    @property
    def taken(self) -> list[str]:
        """Every text that it took, in order; one that was sent again is there again."""
        right = f"Bearer {self._fake.token}"
        return [heard.text for heard in list(self._fake.heard) if heard.headers.get("authorization") == right]

    @property
    def shown(self) -> list[str]:
        return self._fake.told

    def of(self, id_: str) -> list[str]:
        """What it was told of a task, or of a batch."""
        return [text for text in self.taken if id_ in text]

    def settings(self, folder: Path) -> str:
        """``hooks.gateways`` with this one; its token is a file in ``folder``."""
        token = folder / "hooks-token"
        token.write_text(self._fake.token)
        token.chmod(0o600)
        known = {"name": "assistant", "url": self._fake.url, "tokenFile": str(token), "kind": "clawdbot"}
        # It keeps all that it is told: each wake comes by itself.
        return json.dumps([{**known, "pause": 0}])

    @contextlib.contextmanager
    def open(self) -> Iterator["Gateway"]:
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(self._fake.open()):
            yield self


def listening() -> contextlib.AbstractContextManager[Gateway]:
    """A gateway that is there."""
    return Gateway().open()
