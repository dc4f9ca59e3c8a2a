"""What a batch is made of: the item put into its templates, and what is wrong with it found before anything begins.
Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from controlplane.errors import InvalidInput, TooLarge
from controlplane.workspaces import repository, spec
from protocol.batches import ITEMS_LIMIT, PLACE, BatchItem, StartBatch
from protocol.tasks import TASK_LIMIT, DispatchTask, TaskAgent

TEXTS_LIMIT: Final = 8 << 20
"""Bytes of all tasks of a batch together, at most."""

_WORD: Final = re.compile(r"(?![-#])[\w@%+=:,./#-]+")
"""What a shell takes for itself and nothing else, and a command for no option."""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """An item, and the task that it becomes."""

    item: str
    task: DispatchTask


def planned(wanted: StartBatch) -> list[Planned]:
    """Each item with its task. InvalidInput or TooLarge says what is wrong, and with which item."""
    if not wanted.items:
        raise InvalidInput("There are no items; name them with --each, such as `--each 86,87,88`.")
    if len(wanted.items) > ITEMS_LIMIT:
        raise InvalidInput(
            f"{len(wanted.items)} items are too many for one batch, which takes {ITEMS_LIMIT}; split it."
        )
    if (twice := _twice(each.item for each in wanted.items)) is not None:
        raise InvalidInput(f"The item {twice!r} is there twice; leave one out.")
    plan = [Planned(item=each.item, task=_task(wanted, each)) for each in wanted.items]
    _check_names(wanted, plan)
    if (size := sum(len(each.task.task.encode()) for each in plan)) > TEXTS_LIMIT:
        raise TooLarge(f"The tasks have {size:,} bytes together, and at most {TEXTS_LIMIT:,} are taken; use a file.")
    return plan


def _check_names(wanted: StartBatch, plan: Sequence[Planned]) -> None:
    name = _twice(each.task.workspace for each in plan)
    if name is None:
        return
    if wanted.name is not None and PLACE not in wanted.name:
        raise InvalidInput(f"--name {wanted.name!r} gives every item the same workspace; put {PLACE} into it.")
    both = " and ".join(repr(each.item) for each in plan if each.task.workspace == name)
    raise InvalidInput(f"The items {both} would have the same workspace, {name!r}; each needs one of its own.")


def _task(wanted: StartBatch, own: BatchItem) -> DispatchTask:
    try:
        return _filled(wanted, own)
    except InvalidInput as exc:
        raise InvalidInput(f"The item {own.item!r}: {exc.message}") from exc


def _filled(wanted: StartBatch, own: BatchItem) -> DispatchTask:
    if not own.item.strip() or "\0" in own.item:
        raise InvalidInput("An item is a word or more; leave out what is none.")
    agent = own.agent or wanted.agent
    clone = _put(own.clone or wanted.clone, own.item)
    branch = _put(own.branch or wanted.branch, own.item)
    if clone is not None:
        repository.valid_clone(clone)
    if branch is not None:
        repository.valid_branch(branch)
        if clone is None:
            raise InvalidInput("--branch says which branch of --clone to work on; give both.")
    return DispatchTask(
        workspace=_name(wanted, own),
        task=_text(wanted, own, agent),
        agent=agent,
        model=own.model or wanted.model,
        timeout=own.timeout or wanted.timeout,
        wake=wanted.wake,
        create=True,
        start=True,
        clone=clone,
        origin=own.origin or (wanted.origin if own.clone is None else None),
        branch=branch,
        fallback=wanted.fallback,
    )


def _name(wanted: StartBatch, own: BatchItem) -> str:
    template = own.workspace or wanted.name
    if template is None:
        raise InvalidInput("It has no workspace; say how they are called, such as `--name 'review-{}'`.")
    return spec.valid_name(template.replace(PLACE, own.item))


def _text(wanted: StartBatch, own: BatchItem, agent: TaskAgent) -> str:
    template = own.task or wanted.task
    if template is None or not template.strip():
        raise InvalidInput("The task is empty; say what the agent is to do.")
    if agent is TaskAgent.COMMAND and PLACE in template and not _WORD.fullmatch(own.item):
        raise InvalidInput(
            "A shell would take it for something else where it stands in a command; use letters, digits and "
            "@%+=:,./#_- only, not beginning with - or #, or give the item a task of its own in a file."
        )
    text = template.replace(PLACE, own.item)
    if (size := len(text.encode())) > TASK_LIMIT:
        raise InvalidInput(f"The task has {size:,} bytes, and at most {TASK_LIMIT:,} are taken; put it into a file.")
    if "\0" in text:
        raise InvalidInput("The task has a NUL character, which no agent can be given; leave it out.")
    return text


def _put(template: str | None, item: str) -> str | None:
    return None if template is None else template.replace(PLACE, item)


def _twice(values: Iterable[str]) -> str | None:
    return next((value for value, count in Counter(values).items() if count > 1), None)
