"""``perry sessions list|show|search``."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import click
import msgspec

from cli import output
from cli.client import Client
from cli.commands.parameters import Duration, WorkspaceName, as_json
from cli.errors import Misused
from cli.sessions import shown
from cli.sessions.finding import PAGE, SessionName, find, pages, ref, short
from protocol.sessions import Hit, Hits, ListSessions, SearchSessions, SessionInfo, Sessions, SessionStatus

BEGIN: Final = "\ue000"
END: Final = "\ue001"
"""Around the words that were found."""


@click.command("list")
@click.option("--workspace", "-w", type=WorkspaceName(), help="Those in one workspace.")
@click.option("--agent", metavar="AGENT", help="Those of one agent: claude, opencode, codex …")
@click.option("--status", type=click.Choice([each.value for each in SessionStatus]), help="Those that are at it so.")
@click.option("--since", type=Duration(), help="Those that were active within this time, such as 2h.")
@click.option("--all", "-a", "all_", is_flag=True, help="Sessions of subagents too.")
@click.option("--limit", "-n", type=click.IntRange(1), default=50, show_default=True, help="So many, the latest.")
@click.option("--cursor", help="Go on where a page ended (nextCursor of --json).")
@as_json
def list_(
    workspace: str | None,
    agent: str | None,
    status: str | None,
    since: float | None,
    all_: bool,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List sessions, the latest active first."""
    wanted = ListSessions(
        workspace=workspace,
        agent=agent,
        status=status,
        since=None if since is None else datetime.now(UTC) - timedelta(seconds=since),
        subagents=all_,
        cursor=cursor,
    )
    page = _page(Client(), wanted, limit)
    if as_json:
        output.data(page)
        return
    if not page.items:
        narrowed = any((workspace, agent, status, since))
        output.note(
            "No session is like that; `perry sessions list` shows all."
            if narrowed
            else "No coding agent has a session yet; start one in a workspace, as with `perry ssh <name>` and `claude`."
        )
        return
    _table(page.items)
    if page.next_cursor is not None:
        output.note(f"There are more; --limit {limit * 2} shows more of them.")


def _page(client: Client, wanted: ListSessions, limit: int) -> Sessions:
    """So many at once, though the control plane's pages are smaller."""
    items: list[SessionInfo] = []
    while True:
        asked = msgspec.structs.replace(wanted, limit=min(PAGE, limit - len(items)))
        page = client.call("sessions.list", Sessions, asked)
        items += page.items
        if page.next_cursor is None or len(items) >= limit or not page.items:
            return Sessions(items=items, next_cursor=page.next_cursor)
        wanted = msgspec.structs.replace(wanted, cursor=page.next_cursor)


def _table(sessions: Sequence[SessionInfo]) -> None:
    head, rows = shown.listed(sessions, output.width())
    output.line(head)
    for line in (line for row in rows for line in row):
        output.line(line)


@click.command()
@click.argument("session", type=SessionName())
@as_json
def show(session: str, as_json: bool) -> None:
    """Show one session.

    What it is about, how it stands, what it has used, its subagents, and how it is resumed.
    """
    client = Client()
    found = find(client, session)
    if as_json:
        output.data(found)
        return
    where = found.workspace + (" (deleted; its sessions were kept)" if found.deleted_workspace else "")
    status = found.status.value if found.live else f"{found.status.value}, when its workspace was last followed"
    output.pairs(
        [
            ("Title", shown.title(found).removeprefix("└ ")),
            ("Session", found.session_id),
            ("Subagent of", found.parent),
            ("Workspace", where),
            ("Agent", found.agent + (f", {found.model}" if found.model else "")),
            ("Status", status),
            ("Folder", found.cwd),
            ("Messages", f"{found.message_count:,}"),
            ("Tokens", _tokens(found)),
            ("Cost", f"${found.cost:,.4f}" if found.cost else None),
            ("Created", shown.moment(found.created)),
            ("Active", shown.moment(found.last_activity)),
            ("Resume", shlex.join(found.resume) if found.resume else None),
        ]
    )
    below = list(pages(client, ListSessions(workspace=ref(found).workspace, parent=found.session_id, subagents=True)))
    if below:
        output.line()
        output.line(output.styled(f"{shown.count(len(below), 'subagent')}:", "bold"))
        _table(below)
    (identifier,) = short([found])
    output.note(f"`perry sessions messages {identifier}` shows what was said.")


def _tokens(session: SessionInfo) -> str | None:
    used = session.tokens
    if used is None:
        return None
    cached = f", {used.cache_read:,} read from the cache" if used.cache_read else ""
    written = f", {used.cache_write:,} written to it" if used.cache_write else ""
    return f"{used.input:,} in, {used.output:,} out{cached}{written}"


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--workspace", "-w", type=WorkspaceName(), help="In one workspace.")
@click.option("--agent", metavar="AGENT", help="In sessions of one agent: claude, opencode, codex …")
@click.option("--limit", "-n", type=click.IntRange(1, 100), default=20, show_default=True, help="So many, the best.")
@click.option("--cursor", help="Go on where a page ended (nextCursor of --json).")
@as_json
def search(
    words: tuple[str, ...], workspace: str | None, agent: str | None, limit: int, cursor: str | None, as_json: bool
) -> None:
    """Search what was said in all sessions.

    Also in those of stopped workspaces. Finds messages with all of WORDS. An argument with spaces is a phrase; a
    word with * at its end is the beginning of one.
    """
    if not "".join(words).strip():
        raise Misused("There is no word in what you search for; give at least one.")
    query = " ".join(f'"{word}"' if " " in word and '"' not in word else word for word in words)
    wanted = SearchSessions(query=query[:1000], workspace=workspace, agent=agent, cursor=cursor, limit=limit)
    found = Client().call("sessions.search", Hits, wanted)
    if as_json:
        output.data(found)
        return
    for hit, identifier in zip(found.items, short([each.session for each in found.items]), strict=True):
        _hit(hit, identifier)
    if not found.items:
        output.note("Nobody said that.")
    elif found.next_cursor is not None:
        output.note(f"There are more; --limit shows more than {limit}.")


def _hit(hit: Hit, identifier: str) -> None:
    session = hit.session
    columns = output.width()
    head = f"{session.workspace} · {session.agent} · {shown.ago(hit.at or session.last_activity)} · "
    title = output.cut(shown.title(session), None if columns is None else columns - output.columns(head))
    output.line(output.styled(output.clean(head), "dim") + output.styled(title, "bold"))
    output.line(f"  {output.styled(f'{hit.role.value}:', 'dim')} {_snippet(hit.snippet)}")
    output.line(output.styled(f"  perry sessions messages {output.clean(identifier)} --at {hit.ordinal}", "dim"))
    output.line()


def _snippet(text: str) -> str:
    """The words in bold; without colours, as they are."""
    parts: list[str] = []
    for i, part in enumerate(text.split(BEGIN)):
        found, _, rest = part.partition(END) if i else ("", "", part)
        parts.append(output.styled(_flat(found), "match") if found else "")
        parts.append(_flat(rest))
    return "".join(parts).strip()


def _flat(text: str) -> str:
    return output.clean(text.replace("\n", " "))
