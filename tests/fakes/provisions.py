"""A person who brings nothing into workspaces, unless a test says otherwise."""

from collections.abc import Callable

from controlplane.errors import PerryError
from controlplane.ports import Provisions


class FakeProvisions:
    """``order`` is what was asked for; ``failing`` makes ``bring`` or ``prepare`` fail."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.failing: dict[str, PerryError] = {}
        self.has_scripts = False

    async def bring(self, container: str, name: str) -> str | None:
        self._asked("bring")
        return None

    async def prepare(self, container: str, name: str, progress: Callable[[str], None]) -> bool:
        self._asked("prepare")
        progress("script.sh")
        return self.has_scripts

    def _asked(self, what: str) -> None:
        self.order.append(what)
        if what in self.failing:
            raise self.failing[what]


_typed: type[Provisions] = FakeProvisions
