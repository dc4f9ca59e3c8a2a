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
    MANAGE = "manage"
    """Everything else."""


_MAY: dict[IdentityKind, frozenset[Right]] = {
    IdentityKind.ANONYMOUS: frozenset({Right.HEALTH}),
    IdentityKind.NODE: frozenset({Right.HEALTH, Right.WHOAMI}),
    IdentityKind.WORKSPACE: frozenset({Right.HEALTH, Right.WHOAMI}),
    IdentityKind.OWNER: frozenset(Right),
    IdentityKind.TOKEN: frozenset(Right),
}


def rights(identity: Identity) -> frozenset[Right]:
    """All that a caller may."""
    return _MAY[identity.kind]


def demand(identity: Identity, right: Right) -> None:
    """Return when the caller has the right; else NotAuthenticated for nobody, NotAllowed for somebody."""
    if right in rights(identity):
        return
    if identity.kind is IdentityKind.ANONYMOUS:
        raise NotAuthenticated(
            "A token is needed; `perry agent token` on the agent's machine prints it, send it as a bearer token."
        )
    raise NotAllowed(f"This needs the right {right.value!r}, which a caller of kind {identity.kind.value!r} has not.")
