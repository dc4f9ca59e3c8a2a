"""``perry agent install|uninstall``: the agent as a service of systemd."""

import os
from typing import Final

import click

from cli import config, output, systemd
from cli.client import Client
from cli.errors import Missing, Misused, Refused
from cli.readiness import wait_until_ready
from cli.systemd import Mode

FAILED: Final = ("failed", "inactive")
ENOUGH: Final = 2
"""Restarts after which it will not get ready by waiting."""


@click.command()
@click.option("--system", is_flag=True, help="A service of the machine, for the person who calls sudo. Takes root.")
@click.option(
    "--linger/--no-linger",
    default=True,
    show_default=True,
    help="Let your own service run also while you are not logged in (loginctl enable-linger).",
)
def install(system: bool, linger: bool) -> None:
    """Run the agent by systemd: now, after each boot, and again when it crashes.

    By default that is your own systemd. Settings come from config.json, and not from the environment of this shell.
    Calling it again brings the service up to date, and restarts it; workspaces run on meanwhile.
    """
    mode = Mode.SYSTEM if system else Mode.USER
    systemd.require_systemd(mode)
    folder = config.folder().absolute()
    environment = {name: value for name, value in os.environ.items() if name not in systemd.left_behind(os.environ)}
    environment.pop("PERRY_URL", None)
    client = Client(config.own(environment))
    present = systemd.installed()
    for other in present:
        if other.mode is not mode:
            raise Refused(f"{other.unit} is installed already; `perry agent uninstall` removes it, then install again.")
    if not any(each.active in ("active", "activating") for each in present) and client.answers():
        raise Refused(
            f"An agent runs at {client.target.url} by itself; `perry agent kill` ends it, then install again."
        )
    if ignored := systemd.left_behind(os.environ):
        output.warn(f"{', '.join(ignored)} of this shell are not the service's; set them in {folder / 'config.json'}.")
    stays = systemd.install(mode, folder, linger=linger)
    log = "`perry agent logs`"
    wait_until_ready(client, lambda: _last_words(mode), log=log)
    output.line(f"The agent runs at {client.target.url}, by {systemd.unit_file(mode)}; {log} shows its log.")
    if not stays:
        output.warn(
            "It ends when you log out, and comes back when you log in; "
            f"`sudo loginctl enable-linger {systemd.person()}` lets it run without."
        )


@click.command()
@click.option("--system", is_flag=True, help="The machine's, where there is also one of your own.")
def uninstall(system: bool) -> None:
    """End the agent's service and remove it from systemd. Its folder stays, and the workspaces run on."""
    present = [each for each in systemd.installed() if not system or each.mode is Mode.SYSTEM]
    if not present:
        raise Missing("No service of Perry's is installed; `perry agent kill` ends an agent that runs without one.")
    if len(present) > 1:
        raise Misused("There is one of your own and one of the machine's; give --system for the latter.")
    systemd.uninstall(present[0])
    output.line(f"{present[0].unit} is gone. {config.folder()} stays, and so do the workspaces.")


def _last_words(mode: Mode) -> str | None:
    """What it said last, once it has ended again and again."""
    if systemd.restarts(mode) < ENOUGH:
        state = next((each.active for each in systemd.installed() if each.mode is mode), "inactive")
        if state not in FAILED:
            return None
    return output.clean(systemd.why(mode)) or "it said nothing; `perry agent logs` may have more."
