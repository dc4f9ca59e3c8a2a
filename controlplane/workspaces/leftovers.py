"""What deleted workspaces leave on the tailnet: their nodes and keys, which go as soon as the coordinator answers."""

import logging

from controlplane.errors import TailnetError
from controlplane.ports import WORKSPACE_TAG, Tailnet, is_node_of
from controlplane.workspaces.pods import Checkpoint
from controlplane.workspaces.store import Store

log = logging.getLogger(__name__)


class Leftovers:
    """State.db has the list of them; a deletion adds to it."""

    def __init__(self, tailnet: Tailnet, store: Store, checkpoint: Checkpoint) -> None:
        self._tailnet = tailnet
        self._store = store
        self._checkpoint = checkpoint

    async def clear(self) -> None:
        """Remove them; what does not succeed is tried again later."""
        if not self._tailnet.manages:
            return
        for kind, leftover in self._store.leftovers():
            try:
                if kind == "key":
                    await self._tailnet.revoke_key(leftover)
                else:
                    is_left_over = await self._is_left_over(leftover)
                    if is_left_over is None:
                        continue
                    if is_left_over:
                        await self._tailnet.delete_node(leftover)
            except TailnetError as exc:
                log.warning("a deleted workspace's %s stays on the tailnet for now: %s", kind, exc.message)
                return
            self._checkpoint(f"{kind} removed from the tailnet")
            self._store.clear_leftover(kind, leftover)

    async def _is_left_over(self, node_id: str) -> bool | None:
        """Whether a node is a workspace's, and of none that there is; None where only time will tell.

        A coordinator that lost its memory may have given an old id to a person's device, or to a workspace that has
        joined anew and is not recorded yet.
        """
        node = await self._tailnet.node(node_id)
        if node is None or WORKSPACE_TAG not in node.tags:
            return False
        for record in self._store.all():
            if record.tailnet != self._store.tailnet or not is_node_of(node, record.name):
                continue
            if record.node_id == node.id:
                return False
            own = await self._tailnet.node(record.node_id) if record.node_id is not None else None
            if not is_node_of(own, record.name):
                return None
        return True
