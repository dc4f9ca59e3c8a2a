"""``perry secrets``."""

import sys
from typing import Final

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import as_json
from cli.errors import Misused
from protocol.credentials import SecretNames, SecretRef, SetSecret

LIMIT: Final = 64 << 10


@click.group()
def secrets() -> None:
    """Secrets that the agent keeps for workspaces, so that they do not stand in config.json.

    Settings name them: "credentials": {"env": {"NPM_TOKEN": {"secret": "npm"}}}.
    """


@secrets.command("set")
@click.argument("name")
@as_json
def set_(name: str, as_json: bool) -> None:
    """Keep a secret, or replace it. Its value is read from standard input, or asked for."""
    if sys.stdin.isatty():
        value: str = click.prompt(f"Value of {name}", hide_input=True, err=True)
    else:
        value = sys.stdin.read(LIMIT + 2).removesuffix("\n")
    if not value or len(value) > LIMIT:
        raise Misused(f"A secret has 1 byte to {LIMIT >> 10} KB; pipe its value in, or type it when asked.")
    found = Client().call("secrets.set", SecretNames, SetSecret(name=name, value=value))
    if as_json:
        output.data(found)
    else:
        output.note(f"{name} is kept.")


@secrets.command("list")
@as_json
def list_(as_json: bool) -> None:
    """The names of all secrets; their values are never shown."""
    found = Client().call("secrets.list", SecretNames)
    if as_json:
        output.data(found)
        return
    for name in found.items:
        output.line(output.clean(name))
    if not found.items:
        output.note("There are none; `perry secrets set NAME` keeps one.")


@secrets.command()
@click.argument("name")
@as_json
def remove(name: str, as_json: bool) -> None:
    """Forget a secret. Workspaces lose it at their next sync."""
    found = Client().call("secrets.remove", SecretNames, SecretRef(name=name))
    if as_json:
        output.data(found)
    else:
        output.note(f"{name} is forgotten.")
