"""Who on the tailnet is who, and what each may."""

import base64
from typing import Any

import msgspec
import pytest

from controlplane.auth.headers import Headers
from controlplane.auth.identity import Identity
from controlplane.auth.policy import Right, demand, refusal, rights
from controlplane.auth.recognition import Peer, peer_of, recognised
from controlplane.auth.service import GatewayResolver, Remembered
from controlplane.errors import InvalidInput, NotAllowed, NotAuthenticated
from protocol.auth import IdentityKind

WORKSPACES = {"7": "alpha", "8": "beta"}
OWNER = Peer(node_id="1", login="owner", node="laptop.perry.internal", addresses=("100.64.0.1", "fd7a:115c:a1e0::1"))
ALPHA = Peer(node_id="7", node="alpha.perry.internal", tags=("tag:perry-workspace",), addresses=("100.64.0.7",))


def who(peer: Peer, **changes: Any) -> Identity:
    return recognised(
        msgspec.structs.replace(peer, **changes),
        owners=("owner", "öwner@example.com"),
        workspace_of=WORKSPACES.get,
        own_addresses=("100.64.0.99", "fd7a:115c:a1e0::99"),
    )


def test_an_owner_on_a_device_of_their_own() -> None:
    found = who(OWNER, capabilities={"example.com/cap/b": [{"role": "admin"}], "example.com/cap/a": []})
    assert found.kind is IdentityKind.OWNER and found.login == "owner" and found.node == "laptop.perry.internal"
    assert found.capabilities == ("example.com/cap/a", "example.com/cap/b")
    assert rights(found) == set(Right)
    assert who(OWNER, login="öwner@example.com").kind is IdentityKind.OWNER


@pytest.mark.parametrize("login", ["guest", "Owner", "owner ", "owner@", "", "tagged-devices"])
def test_others_are_nobody(login: str) -> None:
    found = who(OWNER, login=login)
    assert found.kind is IdentityKind.NODE and rights(found) == {Right.HEALTH}
    with pytest.raises(NotAllowed, match="who is no owner here"):
        demand(found, Right.WHOAMI)


def test_a_tag_takes_away_the_person() -> None:
    found = who(OWNER, tags=("tag:ci",))
    assert found.kind is IdentityKind.NODE and rights(found) == {Right.HEALTH, Right.WHOAMI, Right.WAKE}
    with pytest.raises(NotAllowed, match=r"recognised as the tagged device laptop \(tag:ci\)"):
        demand(found, Right.MANAGE)


def test_a_workspace_by_node_tag_and_name() -> None:
    found = who(ALPHA)
    assert (found.kind, found.workspace) == (IdentityKind.WORKSPACE, "alpha")
    assert rights(found) == {Right.HEALTH, Right.WHOAMI, Right.WAKE}
    with pytest.raises(NotAllowed, match="recognised as the workspace alpha"):
        demand(found, Right.MANAGE)
    assert who(ALPHA, node="alpha-1.perry.internal").workspace == "alpha", "where the name was taken"


@pytest.mark.parametrize(
    "changes",
    [
        {"node_id": "9"},
        {"node_id": ""},
        {"node_id": "8"},
        {"tags": ("tag:ci",)},
        {"tags": ()},
        {"node": "beta.perry.internal"},
        {"node": ""},
        {"node": "alpha-x.perry.internal"},
    ],
)
def test_what_looks_like_a_workspace_is_none(changes: dict[str, Any]) -> None:
    """Ids are counted from 1 again by a coordinator that lost its memory; names are anybody's to choose."""
    found = who(ALPHA, **changes)
    assert found.kind is IdentityKind.NODE and found.workspace is None


@pytest.mark.parametrize("peer", [OWNER, ALPHA])
@pytest.mark.parametrize("address", ["100.64.0.99", "fd7a:115c:a1e0::99"])
def test_the_agents_own_machine_is_never_an_identity(peer: Peer, address: str) -> None:
    found = who(peer, addresses=("100.64.0.1", address))
    assert found.kind is IdentityKind.NODE and found.agents_machine and rights(found) == {Right.HEALTH}
    assert "the machine that the agent runs on" in refusal(found)


# --- the socket


def header(value: Any, name: str = "Perry-Identity") -> tuple[bytes, bytes]:
    return name.encode(), base64.urlsafe_b64encode(msgspec.json.encode(value)).rstrip(b"=")


def identified(headers: Headers) -> Identity:
    resolver = GatewayResolver(owners=lambda: ("owner",), workspace_of=WORKSPACES.get, own_addresses=tuple)
    return resolver.identify(headers)


def test_the_gateways_word_counts_on_its_socket() -> None:
    said = {"login": "owner", "node": "läptop", "nodeId": "1", "tags": [], "addresses": [], "capabilities": {}, "x": 1}
    assert identified([header(said)]) == Identity(kind=IdentityKind.OWNER, login="owner", node="läptop")
    assert identified([header(said, "pErRy-iDENTITY")]).kind is IdentityKind.OWNER


def test_a_token_means_nothing_there() -> None:
    guest = header({"login": "guest", "nodeId": "1"})
    found = identified([guest, (b"authorization", b"Bearer whatever"), (b"perry-login", b"owner")])
    assert (found.kind, found.login) == (IdentityKind.NODE, "guest")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer whatever")],
        [header({"login": "owner", "nodeId": "1"}, "Perry_Identity")],
        [header({"login": "owner", "nodeId": "1"}, "X-Perry-Identity")],
        [header({"login": "owner", "nodeId": "1"})] * 2,
        [header({"login": "owner", "nodeId": "1"}), header({"login": "guest", "nodeId": "2"}, "PERRY-IDENTITY")],
        [header({"login": "owner"})],
        [header({"login": ["owner"], "nodeId": "1"})],
        [header("owner")],
        [(b"perry-identity", b"")],
        [(b"perry-identity", b"owner")],
        [(b"perry-identity", b"{}")],
        [(b"perry-identity", b"\xff\xfe")],
    ],
)
def test_without_its_word_nobody_is_known(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(NotAuthenticated, match="This socket is for the gateway"):
        identified(headers)


def test_the_gateways_word_is_strict_base64() -> None:
    with pytest.raises(InvalidInput):
        peer_of(base64.urlsafe_b64encode(b'{"nodeId":"1"}').decode() + "!")


def test_addresses_are_asked_for_again_after_a_while() -> None:
    asked: list[int] = []

    def ask() -> tuple[str, ...]:
        asked.append(1)
        return (str(len(asked)),)

    remembered = Remembered(ask, seconds=60)
    assert [remembered(), remembered()] == [("1",), ("1",)]
    at_once = Remembered(ask, seconds=0)
    assert [at_once(), at_once()] == [("2",), ("3",)]
