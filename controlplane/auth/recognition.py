"""Who on the tailnet is an owner, a workspace, or somebody else. Values in, values out."""

import base64
import binascii
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from controlplane.auth.identity import Identity
from controlplane.errors import InvalidInput
from controlplane.ports import Node, is_node_of
from protocol.auth import IdentityKind

WorkspaceOf = Callable[[str], str | None]
"""The workspace that was recorded to be this node, by the node's id."""


class Peer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the gateway says of a caller, as the tailnet told it. ``login`` is empty for tagged nodes."""

    node_id: str
    login: str = ""
    node: str = ""
    tags: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    capabilities: dict[str, list[Any]] = {}


def peer_of(said: str) -> Peer:
    """The gateway's word: JSON in base64url, since names may have any letters. InvalidInput where it is none."""
    try:
        text = base64.b64decode(said + "=" * (-len(said) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(text, type=Peer)
    except (binascii.Error, ValueError, msgspec.DecodeError) as exc:
        raise InvalidInput("The gateway's word about the caller cannot be read.") from exc


def recognised(
    peer: Peer, *, owners: Collection[str], workspace_of: WorkspaceOf, own_addresses: Collection[str]
) -> Identity:
    """Who that is. ``own_addresses`` are those of the agent's machine on the tailnet; in doubt it is just a NODE."""

    def as_kind(kind: IdentityKind, workspace: str | None = None, *, agents_machine: bool = False) -> Identity:
        return Identity(
            kind=kind,
            login=peer.login or None,
            node=peer.node or None,
            workspace=workspace,
            tags=peer.tags,
            capabilities=tuple(sorted(peer.capabilities)),
            agents_machine=agents_machine,
        )

    if set(peer.addresses) & set(own_addresses):
        return as_kind(IdentityKind.NODE, agents_machine=True)
    if peer.tags:
        workspace = workspace_of(peer.node_id) if peer.node_id else None
        if workspace is not None and is_node_of(_node(peer), workspace):
            return as_kind(IdentityKind.WORKSPACE, workspace)
        return as_kind(IdentityKind.NODE)
    if peer.login and peer.login in owners:
        return as_kind(IdentityKind.OWNER)
    return as_kind(IdentityKind.NODE)


def _node(peer: Peer) -> Node:
    name = peer.node.partition(".")[0]
    return Node(id=peer.node_id, name=name, ips=peer.addresses, online=True, tags=peer.tags)
