"""Who may do what. Values in, values out."""

from enum import StrEnum

from controlplane.auth.identity import Identity
from controlplane.errors import NotAllowed, NotAuthenticated
from protocol.auth import IdentityKind


class Right(StrEnum):
    """What a route asks for."""

    HEALTH = "health"
    """See that the server is there."""
    WHOAMI = "whoami"
    """Learn how one is recognised."""
    WAKE = "wake"
    """Wake the person's assistant."""
    MANAGE = "manage"
    """Everything else."""


_TAGGED = frozenset({Right.HEALTH, Right.WHOAMI, Right.WAKE})
"""A device that an administrator gave a task, as a tag tells; it acts for no person."""

_MAY: dict[IdentityKind, frozenset[Right]] = {
    IdentityKind.ANONYMOUS: frozenset({Right.HEALTH}),
    IdentityKind.NODE: frozenset({Right.HEALTH}),
    IdentityKind.WORKSPACE: frozenset({Right.HEALTH, Right.WHOAMI, Right.WAKE}),
    IdentityKind.OWNER: frozenset(Right),
    IdentityKind.TOKEN: frozenset(Right),
}


def rights(identity: Identity) -> frozenset[Right]:
    """All that a caller may."""
    if identity.kind is IdentityKind.NODE and identity.tags and not identity.agents_machine:
        return _TAGGED
    return _MAY[identity.kind]


def demand(identity: Identity, right: Right) -> None:
    """Return when the caller has the right; else NotAuthenticated for nobody, NotAllowed for somebody."""
    if right in rights(identity):
        return
    if identity.kind is IdentityKind.ANONYMOUS:
        raise NotAuthenticated(
            "A token is needed; `perry agent token` on the agent's machine prints it, send it as a bearer token."
        )
    raise NotAllowed(refusal(identity))


def refusal(identity: Identity) -> str:
    """Who a caller was recognised as, why that does not do, and what does."""
    device = (identity.node or "a device without a name").partition(".")[0]
    if identity.agents_machine:
        return (
            f"You are recognised as {device}, the machine that the agent runs on, through which its workspaces could "
            "speak too; call `perry` there without an address, which uses the agent's token."
        )
    if identity.workspace is not None:
        return (
            f"You are recognised as the workspace {identity.workspace}, which may not do this; ask from a device of an "
            "owner."
        )
    if identity.tags:
        return (
            f"You are recognised as the tagged device {device} ({', '.join(identity.tags)}), which acts for no person "
            "and may not do this; ask from a device of an owner."
        )
    return (
        f"You are recognised as {identity.login or 'nobody'}, on {device}, who is no owner here; an owner can add that "
        "name to auth.owners."
    )
