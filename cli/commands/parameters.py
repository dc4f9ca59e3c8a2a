"""Arguments and options that several commands share, and how they are read."""

import math
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from protocol.wire import RESERVED_NAMES, WORKSPACE_NAME_PATTERN

F = TypeVar("F", bound=Callable[..., Any])

UNITS: Final = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
SIZE: Final = re.compile(r"^(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?$", re.IGNORECASE)
LEAST_MEMORY: Final = 64 * 1024**2
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
TEN_YEARS: Final = 3650 * 86400.0
DURATION: Final = re.compile(r"^(?:\d+(?:\.\d+)?[smhd])+$", re.IGNORECASE)


class WorkspaceName(click.ParamType[str]):
    """A workspace's name, refused before anything is sent. Completes those that there are."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not WORKSPACE_NAME_PATTERN.fullmatch(value):
            self.fail(
                f"{value!r} is no workspace name; use 1 to 63 of a-z, 0-9 and -, a letter first and no - last.",
                param,
                ctx,
            )
        if value in RESERVED_NAMES:
            self.fail(f"{value!r} is reserved; choose another name.", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from cli.client import Client
        from cli.errors import CliError
        from protocol.workspaces import Workspace

        try:
            workspaces = Client().call("workspaces.list", list[Workspace], seconds=2)
        except CliError:
            return []
        return [CompletionItem(each.name, help=each.status) for each in workspaces if each.name.startswith(incomplete)]


class Memory(click.ParamType[int]):
    """Bytes, with a unit where wanted: ``4g``, ``512m``, ``1.5GiB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no size; write 4g or 512m.", param, ctx)
        count = int(float(match.group(1)) * UNITS[match.group(2).lower()])
        if count < LEAST_MEMORY:
            self.fail(f"{value!r} is less than a workspace can run in; give 64m at least.", param, ctx)
        return count


class Finite(click.FloatRange):
    """A number in a range. Python also takes ``nan`` and ``inf`` for numbers, which JSON cannot say."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


class Duration(click.ParamType[float]):
    """Seconds, with units: ``90s``, ``20m``, ``1h30m``, ``2d``; so many at most."""

    name = "duration"
    written = "90s, 20m, 1h30m or 2d"

    def __init__(self, most: float = TEN_YEARS) -> None:
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip().lower()
        if not DURATION.fullmatch(text):
            self.fail(f"{value!r} is no duration; write {self.written}.", param, ctx)
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
        seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
        if seconds <= 0:
            self.fail(f"{value!r} is no time at all; give a longer one.", param, ctx)
        if seconds > self._most:
            shown = text if len(text) <= 20 else f"{text[:20]}…"
            self.fail(f"{shown!r} is too long; give {self._most / 86400:g}d at most.", param, ctx)
        return float(seconds)


class Model(click.ParamType[str]):
    """The name of a coding agent's model, which only the agent itself knows."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from protocol.tasks import MODEL_LIMIT

        if not 0 < len(str(value).strip()) <= len(value) <= MODEL_LIMIT:
            self.fail(
                f"a model's name has 1 to {MODEL_LIMIT} characters; leave it out for the agent's own choice.",
                param,
                ctx,
            )
        return str(value)


def workspace_name(function: F) -> F:
    """The argument NAME."""
    return click.argument("name", type=WorkspaceName())(function)


def as_json(function: F) -> F:
    """The option ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")(function)
