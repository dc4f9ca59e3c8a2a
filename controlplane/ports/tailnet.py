"""The tailnet: its nodes, its keys, and who is asked about them."""

from datetime import datetime
from typing import Protocol

import msgspec


class AuthKey(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time key. ``id`` revokes it. ``expires`` is None where the provider does not tell."""

    id: str
    secret: str
    expires: datetime | None

    def __repr__(self) -> str:
        return f"AuthKey(id={self.id!r})"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A device on the tailnet. ``name`` is its first DNS label."""

    id: str
    name: str
    ips: tuple[str, ...]
    online: bool
    tags: tuple[str, ...]
    user: str | None = None
    expired: bool = False


WORKSPACE_TAG = "tag:perry-workspace"
"""Every workspace's node has it, and no device of a person."""

GATEWAY_TAG = "tag:perry-gateway"
"""The node of the control plane itself has it."""


def is_node_of(node: Node | None, workspace: str) -> bool:
    """Whether a node is this workspace's. Ids do not tell: a coordinator that lost its memory counts from 1 again.

    Where the name was taken, a coordinator appends a number to it.
    """
    if node is None or WORKSPACE_TAG not in node.tags:
        return False
    head, _, number = node.name.rpartition("-")
    return node.name == workspace or (head == workspace and number.isdigit())


class TailnetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How the tailnet stands. ``error`` is a sentence that says what to do when not ready.

    ``control_url`` is what people give their devices. ``warning`` is what they have to know although it is ready,
    ``join_notes`` what those who join a device have to. ``credential`` names what the coordinator is asked with, and
    its kind; it holds no secret.
    """

    provider: str
    ready: bool
    control_url: str | None
    domain: str | None
    owners: tuple[str, ...]
    error: str | None = None
    warning: str | None = None
    join_notes: tuple[str, ...] = ()
    credential: str | None = None
    credential_expires: datetime | None = None


class Tailnet(Protocol):
    """The coordinator of a tailnet. Errors are :class:`~controlplane.errors.TailnetError` and its kind."""

    @property
    def provider(self) -> str: ...

    @property
    def joins(self) -> bool:
        """False where there is no tailnet: no key is minted, sidecars only guard the border."""

    @property
    def identity(self) -> str:
        """Tells tailnets apart, over restarts: ids of nodes and keys mean something within one of them alone."""

    @property
    def manages(self) -> bool:
        """False where the credential only lets devices in: ``nodes`` is empty then, and ``node`` a TailnetError."""

    @property
    def control_url(self) -> str | None:
        """What workspaces and the gateway are told, which may be an address that only this machine's pods reach;
        None for the provider's own default."""

    async def ensure(self) -> None:
        """Bring up or check the coordinator. Safe to call again at any time."""

    async def close(self) -> None: ...

    async def remove(self) -> None:
        """Take away what ``ensure`` made on this machine, volumes included."""

    async def info(self) -> TailnetInfo: ...

    async def mint_workspace_key(self, *, seconds: int = 600) -> AuthKey:
        """Tagged WORKSPACE_TAG; one-off, unless the credential itself is a key that is handed out."""

    async def mint_gateway_key(self, *, seconds: int = 600) -> AuthKey:
        """The same, tagged GATEWAY_TAG."""

    async def mint_device_key(self, *, seconds: int = 3600) -> AuthKey:
        """One-off and untagged: a device of the owner. NotReady where devices join otherwise; it says how."""

    async def revoke_key(self, key_id: str) -> None: ...

    async def nodes(self) -> list[Node]: ...

    async def node(self, node_id: str) -> Node | None: ...

    async def delete_node(self, node_id: str) -> None: ...

    async def users(self) -> list[str] | None:
        """Log-in names of the people on it, spelt as WhoIs spells them; None where the credential may not ask."""

    async def unused_keys(self) -> list[str] | None:
        """Ids of the workspaces' keys that can still be used; None where the provider cannot tell ours from others'."""
