"""``perry batches``: what became of batches, which ``perry dispatch --each`` starts."""

import re
import sys
from typing import Final

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import as_json
from cli.errors import Missing
from protocol.batches import (
    BATCH_ID_PATTERN,
    Batch,
    Batches,
    BatchRef,
    BatchState,
    ItemState,
    ListBatches,
    PlannedItem,
    StartBatch,
)
from protocol.tasks import WakeWhen

NOT_SUCCEEDED: Final = 1


def _id(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if re.fullmatch(BATCH_ID_PATTERN, value) is None:
        raise Missing(f"There is no batch {value!r}; `perry batches list` shows them.")
    return value


_ID = click.argument("id_", metavar="ID", callback=_id)


@click.group()
def batches() -> None:
    """What became of batches: see them run, collect their results, end them."""


@batches.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@as_json
def list_(limit: int, as_json: bool) -> None:
    """List batches, the newest first."""
    found = Client().call("batches.list", Batches, ListBatches(limit=limit))
    if as_json:
        output.data(found)
        return
    if not found.items:
        output.note("There are no batches; `perry dispatch --each 1,2,3 --name 'item-{}' '<task>'` starts one.")
        return
    output.table(
        ["ID", "STATE", "AGE", "ITEMS", "TASK"],
        [
            [
                each.id,
                each.state,
                output.age(each.created.isoformat()),
                ", ".join(f"{count} {state}" for state, count in each.counts.items()),
                " ".join(each.text.split()),
            ]
            for each in found.items
        ],
        least=output.LEAST_TEXT,
    )
    if found.next_cursor is not None:
        output.note(f"There are more; --limit shows more than {limit}.")


@batches.command()
@_ID
@as_json
def show(id_: str, as_json: bool) -> None:
    """Show one batch with its items."""
    from cli.batches import watching

    batch = watching.got(Client(), id_)
    if as_json:
        output.data(batch)
    else:
        watching.show(batch)


@batches.command()
@_ID
@click.option("--collect", metavar="DIR", help="Put what each item left into files there.")
@as_json
def watch(id_: str, collect: str | None, as_json: bool) -> None:
    """Watch a batch to its end. Its exit code is that of `perry dispatch`: 0 where every item succeeded."""
    from cli.batches import watching

    client = Client()
    watch_and_show(client, watching.got(client, id_), collect, as_json=as_json)


@batches.command()
@_ID
@click.argument("folder", metavar="[DIR]", required=False)
@as_json
def collect(id_: str, folder: str | None, as_json: bool) -> None:
    """Put what the items left into files: a folder for each, and batch.json; into ./ID unless told otherwise."""
    from cli.batches import watching
    from cli.batches.collecting import Folder

    client = Client()
    batch = watching.got(client, id_)
    results = Folder(folder or id_)
    results.take(id_)
    results.collect(client, batch)
    if as_json:
        output.data(batch)
    else:
        done = sum(entry.done for entry in batch.items)
        output.line(f"{done} of {len(batch.items)} items are in {results.path}.")


@batches.command()
@_ID
@as_json
def cancel(id_: str, as_json: bool) -> None:
    """Begin no item more, and end those under way. What they have changed stays."""
    batch = Client().call("batches.cancel", Batch, BatchRef(id=id_))
    if as_json:
        output.data(batch)
    elif batch.summary.state != BatchState.RUNNING:
        output.line(f"The batch {id_} has ended already; nothing is changed.")
    else:
        output.line(f"The batch {id_} ends; `perry batches watch {id_}` shows how far it is.")


def watch_and_show(client: Client, batch: Batch, collect: str | None, *, as_json: bool) -> None:
    """Watch it to its end, collecting on the way, show all of it, and end with the exit code that it comes to."""
    from cli.batches import watching
    from cli.batches.collecting import Folder

    results = None if collect is None else Folder(collect)
    if results is not None:
        results.take(batch.summary.id)

    def changed(now: Batch) -> None:
        if results is not None:
            results.collect(client, now)

    batch = watching.follow(client, batch, watching.view(sys.stderr), changed)
    if as_json:
        output.data(batch)
    else:
        watching.show(batch)
        if results is not None:
            output.line(f"What they left is in {results.path}.")
    if any(entry.state != ItemState.SUCCEEDED for entry in batch.items):
        sys.exit(NOT_SUCCEEDED)


def tell(batch: Batch) -> None:
    """What was begun, for who does not wait."""
    id_, wake = batch.summary.id, batch.summary.wake
    count = len(batch.items)
    told = "; its end wakes once" if wake != WakeWhen.NONE and batch.summary.state == BatchState.RUNNING else ""
    output.line(f"Batch {output.styled(id_, 'bold')} of {count} item{'s' * (count > 1)} goes on{told}.")
    output.line(f"  perry batches watch {id_}     until it has ended")
    output.line(f"  perry batches collect {id_}   what the items left, as files")


def show_plan(items: list[PlannedItem], batch: StartBatch) -> None:
    """What would be done."""
    output.table(
        ["ITEM", "WORKSPACE", "AGENT", "TASK"],
        [[each.item, each.workspace, each.agent, " ".join(each.task.split())] for each in items],
        [_remark(each, batch) for each in items],
        least=output.LEAST_TEXT,
    )
    at_once = min(batch.parallel, len(items))
    output.note(f"Nothing was begun; without --dry-run all {len(items)} would be, {at_once} at once.")


def _remark(item: PlannedItem, batch: StartBatch) -> str | None:
    if not item.exists:
        return None
    return "works in what is there" if batch.reuse else "is there already: --reuse works in it, else it is refused"
