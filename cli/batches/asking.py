"""What a batch is asked for with: the options, the file where there is one, and local repositories sent ahead."""

import secrets
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import click
import msgspec

from cli.batches import file, items
from cli.client import Client
from cli.commands.parameters import Duration, Model
from cli.errors import Misused, Refused
from protocol.batches import PARALLEL_LIMIT, PLACE, BatchItem, BatchPlan, StartBatch
from protocol.tasks import LONGEST, RemoveWhen, TaskAgent, WakeWhen
from protocol.workspaces import UPLOADED

UPLOAD_OF_NOTHING: Final = UPLOADED + "0" * 16
"""In place of a local repository where nothing is really to be sent."""

NAMED: Final = 5
"""Workspaces that a sentence names, of more."""

CHOICES: Final[Mapping[str, type[TaskAgent] | type[WakeWhen] | type[RemoveWhen]]] = {
    "agent": TaskAgent,
    "wake": WakeWhen,
    "remove_when": RemoveWhen,
}


SPELT: Final[Mapping[str, click.ParamType[Any]]] = {
    "timeout": Duration(LONGEST),
    "fallback": Duration(LONGEST),
    "model": Model(),
}


class Asked(msgspec.Struct, frozen=True):
    """A batch, and where its results are to be put."""

    batch: StartBatch
    collect: str | None


def asked(options: Mapping[str, Any], typed: Callable[[str], bool], task: str | None) -> Asked:
    """What the command line says, else the file, else the defaults. ``options`` are those of ``perry dispatch``, of
    which ``typed`` says which a person gave."""
    told = file.BatchFile() if options["file"] is None else file.read(options["file"])

    def said(name: str) -> Any:
        return options[name] if typed(name) or (value := getattr(told, name)) is None else _read(name, value)

    batch = StartBatch(
        items=_items(options["each"], told),
        name=said("name"),
        task=task if task is not None else told.task,
        agent=TaskAgent(said("agent")),
        model=said("model"),
        timeout=said("timeout"),
        clone=said("clone"),
        branch=said("branch"),
        parallel=said("parallel"),
        wake=WakeWhen(said("wake")),
        wake_each=said("wake_each"),
        remove_when=RemoveWhen(said("remove_when")),
        reuse=said("reuse"),
        fallback=said("fallback"),
        key=secrets.token_hex(16),
    )
    if not batch.items:
        raise Misused("There are no items; name them with --each, such as `--each 86,87,88`, or in the file.")
    return Asked(batch, said("collect"))


def _items(each: tuple[str, ...], told: file.BatchFile) -> list[BatchItem]:
    if each:
        named = [item for part in each for item in (_of_stdin() if part == "-" else items.items(part))]
    elif isinstance(told.each, str):
        named = items.items(told.each)
    else:
        named = [str(item) for item in told.each or ()]
    own = [
        BatchItem(
            item=str(each.item),
            workspace=each.workspace,
            task=each.task,
            agent=None if each.agent is None else TaskAgent(_read("agent", each.agent)),
            model=None if each.model is None else _read("model", each.model),
            timeout=None if each.timeout is None else _read("timeout", each.timeout),
            clone=each.clone,
            branch=each.branch,
        )
        for each in told.items
    ]
    found = [*(BatchItem(item=item) for item in named), *own]
    for one in found:
        items.check(one.item)
    return found


def _of_stdin() -> list[str]:
    try:
        return items.lines(sys.stdin.buffer.read().decode())
    except UnicodeDecodeError as exc:
        raise Misused("The items on stdin are not UTF-8; convert them first.") from exc


def _read(name: str, value: Any) -> Any:
    """A value of the file, as its option is read."""
    if name in CHOICES:
        known = [str(each) for each in CHOICES[name]]
        if value not in known:
            raise Misused(f"The file's {name.replace('_', '-')} is {value!r}; write one of {', '.join(known)}.")
    elif name == "parallel" and not 1 <= value <= PARALLEL_LIMIT:
        raise Misused(f"The file's parallel is {value}; write 1 to {PARALLEL_LIMIT}.")
    elif name in SPELT:
        if name == "fallback" and value == "none":
            return 0.0
        try:
            return SPELT[name].convert(value, None, None)
        except click.BadParameter as exc:
            raise Misused(f"The file's {name}: {exc.message}") from exc
    return value


def with_repositories(client: Client, batch: StartBatch, *, dry: bool) -> StartBatch:
    """The batch with uploads in place of folders here: one for each folder, however many items clone it. Nothing is
    sent where it is ``dry``, or where the agent would refuse the batch."""
    from cli import bundle, uploading

    wanting: dict[str, list[int]] = {}
    own = list(batch.items)
    for i, each in enumerate(batch.items):
        clone = (each.clone or batch.clone or "").replace(PLACE, each.item)
        branch = each.branch or batch.branch
        if clone and bundle.local_path(clone) is not None:
            wanting.setdefault(clone, []).append(i)
            own[i] = msgspec.structs.replace(each, clone=UPLOAD_OF_NOTHING, branch=branch)
    unsent = msgspec.structs.replace(batch, items=own)
    if dry or not wanting:
        return unsent
    _must_be_taken(client, unsent)
    for clone, places in wanting.items():
        upload, origin, checked_out = uploading.uploaded(client, clone, None)
        for i in places:
            own[i] = msgspec.structs.replace(own[i], clone=upload, origin=origin, branch=own[i].branch or checked_out)
    return msgspec.structs.replace(batch, items=own)


def _must_be_taken(client: Client, batch: StartBatch) -> None:
    """What the agent would say of it at its start, as far as it can be known before: a repository may be large."""
    plan = client.call("batches.plan", BatchPlan, batch)
    there = sorted(each.workspace for each in plan.items if each.exists)
    if not there or batch.reuse:
        return
    names = ", ".join(repr(name) for name in there[:NAMED])
    more = f" and {len(there) - NAMED} more" if len(there) > NAMED else ""
    subject, verb = ("workspaces", "are") if len(there) > 1 else ("workspace", "is")
    raise Refused(
        f"The {subject} {names}{more} {verb} there already; choose another --name, delete what is done with, or let "
        "the batch work in what is there with --reuse."
    )
