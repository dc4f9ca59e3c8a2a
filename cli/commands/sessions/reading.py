"""``perry sessions messages|export``."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from cli import output
from cli.client import Client
from cli.errors import CliError, Missing, Refused
from cli.sessions import shown
from cli.sessions.finding import SessionName, find, ref
from cli.sessions.printing import Show
from protocol.sessions import ListMessages, Messages

PAGE = 500
AROUND = 3
"""Messages that are shown before the one that was asked for."""


@click.command()
@click.argument("session", type=SessionName())
@click.option("--follow", "-f", is_flag=True, help="Go on with new messages as they come.")
@click.option("--full", is_flag=True, help="All that tools were given and gave back, and all thoughts.")
@click.option("--limit", "-n", type=click.IntRange(1), default=50, show_default=True, help="So many messages.")
@click.option("--all", "-a", "all_", is_flag=True, help="All messages.")
@click.option("--before", type=click.IntRange(0), metavar="N", help="The latest before message N.")
@click.option("--after", type=click.IntRange(0), metavar="N", help="The first after message N.")
@click.option("--at", type=click.IntRange(0), metavar="N", help="Message N, with what stands around it.")
@click.option("--json", "as_json", is_flag=True, help="Print a message a line as JSON, and nothing else, on stdout.")
def messages(
    session: str,
    follow: bool,
    full: bool,
    limit: int,
    all_: bool,
    before: int | None,
    after: int | None,
    at: int | None,
    as_json: bool,
) -> None:
    """Show what was said in a session.

    The latest messages, in their order. A tool takes a line for what it was given, and one for what it gave back;
    --full shows all of it.
    """
    if sum(each is not None and each is not False for each in (before, after, at, all_ or None)) > 1:
        raise click.UsageError("Give one of --before, --after, --at and --all.")
    if follow and before is not None:
        raise click.UsageError("--follow goes on after the latest message; --before ends earlier.")
    client = Client()
    found = find(client, session)
    show = Show(found, full=full, as_json=as_json, now=follow)
    wanted = ListMessages(workspace=found.workspace, agent=found.agent, session_id=found.session_id)
    if at is not None:
        after = at - AROUND - 1
    if all_:
        after, limit = -1, sys.maxsize
    show.head()
    earlier, later, last = _print(client, msgspec.structs.replace(wanted, before=before, after=after), limit, show)
    if at is not None and last < at:
        raise Missing(f"There is no message {at} in it; without --at the latest are shown.")
    if follow:
        from cli.sessions.following import follow as go_on

        go_on(client, found, show, last)
        return
    show.foot(earlier, later)


def _print(client: Client, wanted: ListMessages, limit: int, show: Show) -> tuple[int | None, int | None, int]:
    """Show pages. Ordinals of the first and the last where there are more on that side; and the last, or -1."""
    pages = list(_pages_back(client, wanted, limit)) if wanted.after is None else _pages(client, wanted, limit)
    first: int | None = None
    last, earlier, later = -1, False, False
    for page in pages:
        for message in page.items:
            show(message)
        if page.items:
            if first is None:
                first, earlier = page.items[0].ordinal, page.more_before
            last, later = page.items[-1].ordinal, page.more_after
    return first if earlier else None, last if later else None, last


def _pages(client: Client, wanted: ListMessages, limit: int) -> Iterator[Messages]:
    """Forwards from ``after``."""
    while limit > 0:
        page = _ask(client, msgspec.structs.replace(wanted, limit=min(limit, PAGE)))
        yield page
        if not page.items or not page.more_after:
            return
        limit -= len(page.items)
        wanted = msgspec.structs.replace(wanted, after=page.items[-1].ordinal)


def _pages_back(client: Client, wanted: ListMessages, limit: int) -> list[Messages]:
    """Backwards from ``before``, or from the end; in the messages' order all the same."""
    pages: list[Messages] = []
    while limit > 0:
        page = _ask(client, msgspec.structs.replace(wanted, limit=min(limit, PAGE)))
        pages.insert(0, page)
        if not page.items or not page.more_before:
            break
        limit -= len(page.items)
        wanted = msgspec.structs.replace(wanted, before=page.items[0].ordinal)
    return pages


def _ask(client: Client, wanted: ListMessages) -> Messages:
    return client.call("sessions.messages", Messages, wanted)


@click.command()
@click.argument("session", type=SessionName())
@click.option(
    "--output", "-o", "file", type=click.Path(dir_okay=False, path_type=Path), help="Into this file, not to stdout."
)
@click.option("--force", "-f", is_flag=True, help="Replace the file if there is one.")
def export(session: str, file: Path | None, force: bool) -> None:
    """Write a session as JSON lines.

    What the session is in the first, then a message a line. Secrets that were masked in the index stay masked.
    """
    if file is not None and file.exists() and not force:
        raise Refused(f"{file} is there already; give another name, or --force to replace it.")
    client = Client()
    found = find(client, session)
    count = 0
    with _writing(file) as stream:
        stream.write(msgspec.json.encode(found) + b"\n")
        every = msgspec.convert(msgspec.to_builtins(ref(found)) | {"after": -1}, ListMessages)
        for page in _pages(client, every, sys.maxsize):
            for message in page.items:
                stream.write(msgspec.json.encode(message) + b"\n")
                count += 1
    if file is not None:
        output.note(f"{shown.count(count, 'message')} in {file}.")


@contextlib.contextmanager
def _writing(file: Path | None) -> Iterator[BinaryIO]:
    """stdout, or a file that is there whole or not at all."""
    if file is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        # What was said may be confidential.
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            yield stream
        partial.replace(file)
    except OSError as exc:
        raise CliError(f"{file} cannot be written ({exc.strerror}); give another name.") from exc
    finally:
        partial.unlink(missing_ok=True)
