"""Which session is meant: by its id, the beginning of it, or ``workspace/agent/id``."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click
import msgspec

from cli import output
from cli.client import Client
from cli.errors import CliError, Missing, Misused
from cli.task_names import is_id
from protocol.sessions import ListSessions, SessionInfo, SessionRef, Sessions
from protocol.tasks import Task, TaskRef
from protocol.wire import WORKSPACE_NAME_PATTERN

PAGE: Final = 500
SHORTEST: Final = 8
"""Characters of an id that are shown at least."""
LONGER: Final = {"ses_": 16, "agent-": 14}
"""The same for ids that begin alike: OpenCode's, with the time in them, and those of Claude Code's subagents."""
TIMED_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7")
CANDIDATES: Final = 8
AGENT: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


class SessionName(click.ParamType[str]):
    """What a person types for a session. Completes the latest."""

    name = "session"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        if not text or len(text) > 320 or not output.is_one_line(text):
            self.fail(f"{value!r} is no session's id; `perry sessions list` shows them.", param, ctx)
        return text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        try:
            found = (
                Client().call("sessions.list", Sessions, ListSessions(id_prefix=incomplete or None), seconds=2).items
            )
        except CliError:
            return []
        return [
            CompletionItem(each.session_id, help=output.clean(f"{each.workspace} {each.agent}: {each.title}"))
            for each in found
            if each.session_id.startswith(incomplete) and re.fullmatch(r"[\w.-]+", each.session_id)
        ]


def find(client: Client, name: str) -> SessionInfo:
    """The session that is meant; a task's id means that of its agent. Missing where there is none, Misused where there
    are several."""
    workspace, agent, begin = _parts(name)
    wanted = ListSessions(workspace=workspace, agent=agent, id_prefix=begin, subagents=True, limit=PAGE)
    found = [each for each in pages(client, wanted) if each.session_id.startswith(begin)]
    # The whole id of one may be the beginning of another's.
    exact = [each for each in found if each.session_id == begin]
    candidates = exact or found
    if not candidates and is_id(name):
        return _of_task(client, name)
    if not candidates:
        raise Missing(f"There is no session {name!r}; `perry sessions list --all` shows them.")
    if len(candidates) > 1:
        shown = ", ".join(_whole(each) for each in candidates[:CANDIDATES])
        more = f" and {len(candidates) - CANDIDATES} more" if len(candidates) > CANDIDATES else ""
        raise Misused(f"{name!r} begins {len(candidates)} sessions: {shown}{more}; give more of it.")
    return candidates[0]


def _of_task(client: Client, name: str) -> SessionInfo:
    """The session that a task's agent works in."""
    task = client.call("tasks.get", Task, TaskRef(id=name))
    if task.session_id is None:
        raise Missing(f"The task {name!r} has no session; `perry tasks logs {name}` shows what it has printed.")
    return find(client, f"{task.workspace}/{task.agent}/{task.session_id}")


def ref(session: SessionInfo) -> SessionRef:
    """What procedures know it by. CliError for one that no control plane would take."""
    asked = {"workspace": session.workspace, "agent": session.agent, "sessionId": session.session_id}
    try:
        return msgspec.convert(asked, SessionRef)
    except msgspec.ValidationError as exc:
        raise CliError(f"The agent told of a session with a name that cannot be: {exc}.") from exc


def pages(client: Client, wanted: ListSessions, most: int | None = None) -> Iterator[SessionInfo]:
    """Sessions, page after page; ``most`` of them."""
    left = most
    while True:
        size = PAGE if left is None else min(PAGE, left)
        page = client.call("sessions.list", Sessions, msgspec.structs.replace(wanted, limit=size))
        yield from page.items
        left = None if left is None else left - len(page.items)
        if page.next_cursor is None or not page.items or (left is not None and left <= 0):
            return
        wanted = msgspec.structs.replace(wanted, cursor=page.next_cursor)


def short(sessions: Sequence[SessionInfo]) -> list[str]:
    """Each one's id, as short as it still differs from all others here, and will from those to come."""
    ids = sorted({each.session_id for each in sessions})
    needed: dict[str, int] = {}
    for i, each in enumerate(ids):
        beside = (ids[i - 1] if i else "", ids[i + 1] if i + 1 < len(ids) else "")
        needed[each] = max(_least(each), *(1 + _shared(each, other) for other in beside))
    return [each.session_id[: needed[each.session_id]].rstrip("-") for each in sessions]


def _shared(one: str, other: str) -> int:
    """Characters that both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (here, there) in pairs if here != there), min(len(one), len(other)))


def _least(session_id: str) -> int:
    """What begins with the time of its making is another's soon after: so much of it says more than that."""
    if TIMED_UUID.match(session_id):
        return 13
    return next((length for begin, length in LONGER.items() if session_id.startswith(begin)), SHORTEST)


def _parts(name: str) -> tuple[str | None, str | None, str]:
    words = name.split("/", 2)
    if len(words) > 1 and WORKSPACE_NAME_PATTERN.fullmatch(words[0]):
        if len(words) == 3 and AGENT.fullmatch(words[1]):
            return words[0], words[1], words[2]
        if len(words) == 2 and words[1]:
            return words[0], None, words[1]
    return None, None, name


def _whole(session: SessionInfo) -> str:
    return output.clean(f"{session.workspace}/{session.agent}/{session.session_id}")
