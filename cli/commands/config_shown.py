"""What ``perry config`` shows when it is asked for nothing else."""

from typing import Any

import msgspec

from cli import output
from cli.client import Client
from protocol.config import Config, ConfigValue
from protocol.credentials import Brought


class Shown(msgspec.Struct, frozen=True, rename="camel"):
    """What ``perry config --json`` prints."""

    config: Config
    brought: Brought


def show(as_json: bool) -> None:
    """Every setting that is not as it comes, what workspaces are given, and where each of it comes from."""
    client = Client()
    shown = Shown(client.call("config.get", Config), client.call("credentials.list", Brought))
    if as_json:
        output.data(shown)
        return
    changed = [item for item in shown.config.items if item.source != "default"]
    output.line(f"Settings of the agent at {client.target.url}, in {output.clean(shown.config.folder)}:")
    if changed:
        output.table(("SETTING", "VALUE", "FROM"), [(item.key, _value(item), _source(item)) for item in changed])
    else:
        output.line("  All are as they come.")
    output.line()
    output.line("Brought into workspaces:")
    rows = [
        (item.path, item.source if item.present else f"{item.source} (not there)", item.setting)
        for item in shown.brought.items
    ]
    if rows:
        output.table(("IN THE WORKSPACE", "FROM", "SETTING"), [tuple(map(output.clean, row)) for row in rows])
    else:
        output.line("  Nothing.")
    for problem in shown.brought.problems:
        output.warn(output.clean(problem))


def _value(item: ConfigValue) -> str:
    value: Any = item.value
    return output.clean(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _source(item: ConfigValue) -> str:
    return "config.json" if item.source == "file" else output.clean(item.source)
