"""How procedures are declared: what is wrong there fails when it is imported, not when it is called."""

import pytest

from controlplane.app import procedures
from controlplane.auth.identity import TOKEN, Identity
from controlplane.auth.policy import Right
from controlplane.procedures import Group
from protocol.agent import Killed
from protocol.auth import WhoAmI
from protocol.workspaces import WorkspaceRef
from tests.fakes.surface import Surface


class Service:
    name = "the service"


async def test_a_function_is_called_with_what_its_annotations_say() -> None:
    group = Group("things", Service)
    seen: list[object] = []

    @group.procedure("both", right=Right.WHOAMI)
    async def both(service: Service, wanted: WorkspaceRef, identity: Identity) -> Killed:
        """Says both."""
        seen.extend([service, wanted, identity])
        return Killed(ok=True)

    @group.procedure("neither")
    async def neither(service: Service) -> None:
        seen.append(service)

    service = Service()
    first, second = group.bind(service)
    assert (first.procedure.path, first.procedure.summary) == ("/rpc/things/both", "Says both.")
    assert (first.procedure.right, second.procedure.right) == (Right.WHOAMI, Right.MANAGE)
    assert (first.procedure.input, first.procedure.output) == (WorkspaceRef, Killed)
    assert await first.call(WorkspaceRef(name="a"), TOKEN) == Killed(ok=True)
    assert await second.call(None, TOKEN) is None
    assert seen == [service, WorkspaceRef(name="a"), TOKEN, service]


def test_a_wrong_declaration_fails_at_once() -> None:
    group = Group("things", Service)

    async def no_service() -> None: ...
    async def other_service(service: WhoAmI) -> None: ...
    async def plain_input(service: Service, name: str) -> None: ...
    async def two_inputs(service: Service, a: WorkspaceRef, b: WorkspaceRef) -> None: ...

    for function in (no_service, other_service, plain_input, two_inputs):
        with pytest.raises(TypeError):
            group.procedure("wrong")(function)

    async def fine(service: Service) -> None: ...

    group.procedure("fine")(fine)
    with pytest.raises(TypeError, match="twice"):
        group.procedure("fine")(fine)


def test_what_is_described_is_what_is_served(surface: Surface) -> None:
    served = {route.path for route in surface.litestar.routes if route.path.startswith("/rpc/")}
    assert served == {procedure.path for procedure in procedures()}
    assert all(procedure.summary for procedure in procedures())
    assert len({procedure.path for procedure in procedures()}) == len(procedures())
