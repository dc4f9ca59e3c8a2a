"""Declares the procedures of the API. A feature's ``routes`` is a list of these, one to three lines each:

    group = Group("workspaces", Workspaces)

    @group.procedure("get")
    async def get(workspaces: Workspaces, wanted: WorkspaceRef) -> Workspace:
        \"\"\"One workspace.\"\"\"
        return await workspaces.get(wanted.name)

What it takes and gives, in the API and in its document, is what the annotations say. Nothing here knows of HTTP.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec

from controlplane.auth.identity import Identity
from controlplane.auth.policy import Right
from protocol.wire import Wire

S = TypeVar("S")
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


class Procedure(msgspec.Struct, frozen=True, kw_only=True):
    """One procedure, ``POST /rpc/<group>/<name>``. ``input`` is None where it takes none."""

    group: str
    name: str
    summary: str
    right: Right
    input: type[Wire] | None
    output: Any
    takes_identity: bool
    function: Callable[..., Awaitable[Any]]

    @property
    def path(self) -> str:
        return f"/rpc/{self.group}/{self.name}"


class Bound(msgspec.Struct, frozen=True):
    """A procedure with the service that it works on."""

    procedure: Procedure
    service: Any

    async def call(self, wanted: Wire | None, identity: Identity) -> Any:
        """Run it. ``wanted`` is a value of its input type."""
        procedure = self.procedure
        arguments: list[Any] = [self.service]
        if procedure.input is not None:
            arguments.append(wanted)
        if procedure.takes_identity:
            arguments.append(identity)
        return await procedure.function(*arguments)


class Group(Generic[S]):
    """The procedures of a feature, all on one service. ``right`` is what they ask for, unless one says otherwise."""

    def __init__(self, name: str, service: type[S], *, right: Right = Right.MANAGE) -> None:
        self.name = name
        self.procedures: list[Procedure] = []
        self._service = service
        self._right = right

    def procedure(self, name: str, *, right: Right | None = None) -> Callable[[F], F]:
        """Add a function of the service, then of an input struct and of the caller's Identity, both as needed."""

        def add(function: F) -> F:
            self.procedures.append(self._declared(name, right or self._right, function))
            return function

        return add

    def bind(self, service: S) -> list[Bound]:
        """The procedures, ready to be served."""
        return [Bound(procedure, service) for procedure in self.procedures]

    def _declared(self, name: str, right: Right, function: Callable[..., Awaitable[Any]]) -> Procedure:
        hints = get_type_hints(function, include_extras=True)
        output = hints.pop("return")
        parameters = [hints[parameter] for parameter in inspect.signature(function).parameters]
        if not parameters or parameters[0] is not self._service:
            raise TypeError(f"{self.name}.{name} takes the group's service first")
        rest = parameters[1:]
        takes_identity = bool(rest) and rest[-1] is Identity
        inputs = rest[:-1] if takes_identity else rest
        if len(inputs) > 1 or not all(isinstance(kind, type) and issubclass(kind, Wire) for kind in inputs):
            raise TypeError(f"{self.name}.{name} takes at most one input, a struct of the wire")
        if any(procedure.name == name for procedure in self.procedures):
            raise TypeError(f"{self.name}.{name} is declared twice")
        return Procedure(
            group=self.name,
            name=name,
            summary=inspect.getdoc(function) or "",
            right=right,
            input=inputs[0] if inputs else None,
            output=output,
            takes_identity=takes_identity,
            function=function,
        )
