"""``perry wakes``: what became of wakes, and of the gateways that they go to."""

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import WorkspaceName, as_json
from cli.errors import CliError
from protocol.wake import ListWakes, Retried, RetryWakes, ShownWake, TestWake, Wake, WakeRef, Wakes, WakeState, WakeWay

STYLE = {WakeState.DELIVERED: "green", WakeState.REJECTED: "red", WakeState.DEAD: "red"}


@click.group()
def wakes() -> None:
    """What became of wakes, and of the gateways that they go to."""


@wakes.command("list")
@click.option("--workspace", type=WorkspaceName(), help="Those of one workspace.")
@click.option("--state", type=click.Choice([each.value for each in WakeState]), help="Those in one state.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@as_json
def list_(workspace: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """List wakes, the newest first."""
    found = Client().call("wakes.list", Wakes, ListWakes(workspace=workspace, state=state, limit=limit))
    if as_json:
        output.data(found)
        return
    for gateway in found.gateways:
        if gateway.problem is not None:
            output.warn(output.clean(f"{gateway.name} ({gateway.waiting} wait): {gateway.problem}"))
    if not found.gateways:
        output.note("No gateway is set that could be woken; docs/howto/wakes.md says how to name one.")
    if not found.items:
        output.note("There are no wakes.")
        return
    output.table(
        ["ID", "STATE", "WORKSPACE", "GATEWAY", "AGE", "TRIES", "TEXT"],
        [
            [
                each.id,
                each.state,
                each.workspace or "",
                each.gateway,
                output.age(each.created.isoformat()),
                str(each.attempts),
                " ".join(each.text.split()),
            ]
            for each in found.items
        ],
        [each.answer if each.state is not WakeState.DELIVERED else None for each in found.items],
        least=output.LEAST_TEXT,
    )
    if found.next_cursor is not None:
        output.note(f"There are more; --limit shows more than {limit}.")


@wakes.command()
@click.argument("id_", metavar="ID")
@as_json
def show(id_: str, as_json: bool) -> None:
    """Show one wake, with each attempt's answer."""
    found = Client().call("wakes.show", ShownWake, WakeRef(id=id_))
    if as_json:
        output.data(found)
        return
    wake = found.wake
    output.pairs(
        [
            ("Wake", wake.id),
            ("State", wake.state),
            ("Gateway", wake.gateway or "none"),
            ("Mode", wake.mode),
            ("Session", wake.session),
            ("Workspace", wake.workspace),
            ("Task", wake.task),
            ("Made", f"{wake.created.astimezone():%Y-%m-%d %H:%M:%S}"),
            ("Next try", f"{wake.next.astimezone():%Y-%m-%d %H:%M:%S}" if wake.next else None),
            ("Answer", wake.answer),
            ("Text", found.text),
        ]
    )
    for attempt in found.attempts:
        took = "" if attempt.ended is None else f" ({output.duration((attempt.ended - attempt.began).total_seconds())})"
        said = attempt.answer or "no answer is known"
        gateway = f"{attempt.gateway}{_by(attempt.way)}"
        output.line(output.clean(f"{attempt.began.astimezone():%Y-%m-%d %H:%M:%S}{took} {gateway}: {said}"))


@wakes.command()
@click.argument("id_", metavar="ID", required=False)
@click.option("--all", "everything", is_flag=True, help="All that wait, were rejected or are dead.")
@as_json
def retry(id_: str | None, everything: bool, as_json: bool) -> None:
    """Try a wake again, now: one that waits, was rejected, or is dead."""
    if (id_ is None) is not everything:
        raise click.UsageError("Name one wake, or give --all.")
    found = Client().call("wakes.retry", Retried, RetryWakes(id=id_))
    if as_json:
        output.data(found)
    elif found.count:
        many = "1 wake is" if found.count == 1 else f"{found.count} wakes are"
        output.note(f"{many} tried again; `perry wakes list` shows how it goes.")
    else:
        output.note("There is nothing to try again: what was delivered stays so.")


@wakes.command()
@click.option("--gateway", help="Its name; the default one where it is not said.")
@as_json
def test(gateway: str | None, as_json: bool) -> None:
    """Wake a gateway with a text that says that it is a test, once, and show its answer."""
    found = Client().call("wakes.test", Wake, TestWake(gateway=gateway))
    if as_json:
        output.data(found)
    if found.state is not WakeState.DELIVERED:
        raise CliError(output.clean(f"{found.gateway} was not woken. {found.answer or 'It has not answered yet.'}"))
    if not as_json:
        output.note(f"{found.gateway} was woken{_by(found.way)}, with {found.id}.")


def _by(way: WakeWay | None) -> str:
    """How a gateway was connected to, for people."""
    words = {WakeWay.DIRECT: " from the agent's machine", WakeWay.TAILNET: " by Perry's node on the tailnet"}
    return words.get(way, "") if way is not None else ""
