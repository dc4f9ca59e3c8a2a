"""One-time keys for the tailnet, none of which outlives its purpose."""

import contextlib
import logging

import anyio

from controlplane.errors import TailnetError
from controlplane.ports import Tailnet
from controlplane.workspaces.pods import Checkpoint
from controlplane.workspaces.store import Store

log = logging.getLogger(__name__)


class Minting:
    """A key that is being asked for while other things are made."""

    def __init__(self) -> None:
        self._ended = anyio.Event()
        self._secret: str | None = None

    @property
    def over(self) -> bool:
        """Whether it is known."""
        return self._ended.is_set()

    def end(self, secret: str | None) -> None:
        """It is there, or there will be none."""
        self._secret = secret
        self._ended.set()

    async def secret(self) -> str | None:
        """The key, awaited; None where none is needed or none was to be had."""
        await self._ended.wait()
        return self._secret


class Keys:
    """Mints keys for workspaces, and revokes those that a process which ended left behind."""

    def __init__(self, tailnet: Tailnet, store: Store, checkpoint: Checkpoint) -> None:
        self._tailnet = tailnet
        self._store = store
        self._checkpoint = checkpoint
        # Between its minting and its being recorded a key looks like one that was left behind.
        self._recording = anyio.Lock()

    async def mint(self, name: str) -> str:
        """The secret of a new key for this workspace, recorded; the one before it is revoked."""
        record = self._store.get(name)
        if record is not None and record.key_id is not None:
            with contextlib.suppress(TailnetError):
                await self._tailnet.revoke_key(record.key_id)
        async with self._recording:
            minted = await self._tailnet.mint_workspace_key()
            self._checkpoint("key minted")
            self._store.set_key(name, minted.id)
        self._checkpoint("key recorded")
        return minted.secret

    async def sweep(self) -> None:
        """Revoke keys that no workspace has: the process ended between minting and recording."""
        async with self._recording:
            unused = await self._tailnet.unused_keys() or []
            here = [record for record in self._store.all() if record.tailnet == self._store.tailnet]
            recorded = {record.key_id for record in here}
            for key in unused:
                if key not in recorded:
                    log.info("revoking key %s, which no workspace has", key)
                    await self._tailnet.revoke_key(key)
