"""The small command ``perry`` inside a workspace. argparse: it is quick to load and needs nothing."""

import argparse
import asyncio
import json
import os
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec

from protocol.sessions import Message, Text, Thinking, ToolCall, ToolResult
from protocol.wake import TEXT_LIMIT, WAKE_PATH, WakeMode
from protocol.worker import Page, ReadSession, ReadStatus, SessionSeen, WorkerStatus
from worker.conversation import Conversation, Failed, conversation
from worker.settings import load
from worker.version import own_version

WHO_AM_I = "http://perry/rpc/auth/whoami"
"""The control plane, as every device of the tailnet reaches it. It knows a workspace by its node."""

ANSWER_LIMIT = 1 << 16
SHOWN = 50


def main(words: Sequence[str]) -> int:
    """The exit code: 1 where it could not be done, 2 where it was misspelt."""
    parser, here = _parser()
    if words and not words[0].startswith("-") and words[0] not in here:
        sys.stderr.write(
            f"perry: There is no command {words[0]!r} inside a workspace, which has {', '.join(here)}. Those for "
            "workspaces, such as list and ssh, are on your own devices and the agent's machine; run it there.\n"
        )
        return 2
    options = parser.parse_args(words)
    try:
        options.run(options)
    except Failed as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    except BrokenPipeError:
        sys.stderr.close()
    return 0


def _parser() -> tuple[argparse.ArgumentParser, Collection[str]]:
    """It, and the first words that it knows."""
    parser = argparse.ArgumentParser(prog="perry", description="Perry, inside a workspace.")
    parser.add_argument("--version", action="version", version=f"perry worker {own_version()}")
    nouns = parser.add_subparsers(required=True, metavar="COMMAND")

    worker = nouns.add_parser("worker", help="what the worker of this workspace sees").add_subparsers(required=True)
    status = worker.add_parser("status", help="how the worker is")
    status.set_defaults(run=lambda options: _ask(_status, options))
    sessions = worker.add_parser("sessions", help="sessions of coding agents").add_subparsers(required=True)
    list_ = sessions.add_parser("list", help="all sessions, the most recently active first")
    list_.add_argument("--limit", type=int, default=SHOWN, help=f"as many at most (default {SHOWN})")
    list_.set_defaults(run=lambda options: _ask(_list, options))
    messages = sessions.add_parser("messages", help="what was said in one of them")
    messages.add_argument("id", help="its id, or how that begins")
    messages.add_argument("--agent", help="where two agents have one of that id")
    messages.set_defaults(run=lambda options: _ask(_messages, options))

    auth = nouns.add_parser("auth", help="how the agent machine knows this workspace").add_subparsers(required=True)
    whoami = auth.add_parser("whoami", help="who this workspace is on the tailnet, and what it may")
    whoami.set_defaults(run=_whoami)
    wake = nouns.add_parser("wake", help="wake your person's assistant with a text")
    wake.add_argument("text", help="what it is told; `-` reads it from standard input")
    wake.add_argument("--mode", choices=[mode.value for mode in WakeMode], default=WakeMode.NOW.value)
    wake.set_defaults(run=_wake)
    for each in (status, list_, messages, whoami, wake):
        each.add_argument("--json", action="store_true", help="print JSON")
    return parser, nouns.choices


def _ask(what: Callable[[Conversation, Any], Awaitable[None]], options: Any) -> None:
    async def ask() -> None:
        async with conversation(load(os.environ).socket, own_version()) as worker:
            await what(worker, options)

    asyncio.run(ask())


async def _status(worker: Conversation, options: Any) -> None:
    status = await worker.ask(ReadStatus())
    assert isinstance(status, WorkerStatus)
    if options.json:
        _data(status)
        return
    _line(f"worker {status.version}, up {status.uptime:.0f} s, {status.memory / 1e6:.0f} MB")
    _line("changes are heard of at once" if status.watching else "changes are looked for now and then")
    for agent in status.agents:
        _line(f"{agent.agent}: {agent.sessions} sessions" + (f"; {agent.problem}" if agent.problem else ""))


async def _list(worker: Conversation, options: Any) -> None:
    found = (await worker.sessions())[: max(options.limit, 0)]
    if options.json:
        _data(found)
        return
    for each in found:
        when = each.last_activity.astimezone().strftime("%Y-%m-%d %H:%M") if each.last_activity else ""
        _line(f"{each.agent:10} {each.status:8} {when:16} {each.session_id}  {await _title(worker, each)}")
    if not found:
        sys.stderr.write("No coding agent has left a session here yet.\n")


async def _title(worker: Conversation, session: SessionSeen) -> str:
    try:
        page = await worker.ask(ReadSession(agent=session.agent, session_id=session.session_id))
    except Failed:
        return ""
    return (page.facts.title or "") if isinstance(page, Page) else ""


async def _messages(worker: Conversation, options: Any) -> None:
    session = _only(await worker.sessions(), options.id, options.agent)
    messages: dict[int, Message] = {}
    cursor, more = None, True
    while more:
        page = await worker.ask(ReadSession(agent=session.agent, session_id=session.session_id, cursor=cursor))
        assert isinstance(page, Page)
        if page.reset:
            messages.clear()
        messages.update((message.ordinal, message) for message in page.messages)
        more, cursor = page.more and page.cursor != cursor, page.cursor
    ordered = [messages[ordinal] for ordinal in sorted(messages)]
    if options.json:
        _data(ordered)
        return
    for message in ordered:
        _line(f"--- {message.role}" + (f" {message.at.astimezone():%Y-%m-%d %H:%M:%S}" if message.at else ""))
        for text in _texts(message):
            _line(text)


def _texts(message: Message) -> Iterable[str]:
    for block in message.blocks:
        if isinstance(block, Text):
            yield block.text
        elif isinstance(block, Thinking):
            yield f"(thinks) {block.text}"
        elif isinstance(block, ToolCall):
            yield f"(uses {block.name}) {block.input}"
        elif isinstance(block, ToolResult):
            yield f"({'failed' if block.failed else 'got'}) {block.output}"


def _only(sessions: Sequence[SessionSeen], beginning: str, agent: str | None) -> SessionSeen:
    found = [each for each in sessions if each.session_id.startswith(beginning) and agent in (None, each.agent)]
    found = [each for each in found if each.session_id == beginning] or found
    if len(found) == 1:
        return found[0]
    if not found:
        raise Failed(
            f"There is no session {beginning!r} here; `perry worker sessions list` shows those that there are."
        )
    raise Failed(f"{len(found)} sessions begin with {beginning!r}; give more of the id, or --agent.")


def _whoami(options: Any) -> None:
    request = urllib.request.Request(WHO_AM_I, data=b"{}", headers={"Content-Type": "application/json"})
    # No proxy reaches the tailnet.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as response:
            who = json.loads(response.read(ANSWER_LIMIT))["json"]
    except urllib.error.HTTPError as exc:
        raise Failed(f"The control plane did not say ({exc.code}); try again in a while.") from exc
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise Failed(
            "The control plane is not reached from here: this workspace knows it as http://perry, on the tailnet. "
            "`perry tailnet status` on the agent's machine shows how that stands."
        ) from exc
    if options.json or not isinstance(who, dict):
        sys.stdout.write(json.dumps(who, indent=2) + "\n")
        return
    for title, key in (("You are", "kind"), ("Workspace", "workspace"), ("Device", "node"), ("You may", "may")):
        if value := who.get(key):
            _line(f"{title:10} {', '.join(map(str, value)) if isinstance(value, list) else value}")


def _wake(options: Any) -> None:
    text = sys.stdin.read(TEXT_LIMIT + 1) if options.text == "-" else options.text
    body = json.dumps({"text": text, "mode": options.mode}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
    door = f"http://127.0.0.1:{load(os.environ).wake_port}{WAKE_PATH}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(door, data=body, headers=headers), timeout=30) as response:
            said = json.loads(response.read(ANSWER_LIMIT))
    except urllib.error.HTTPError as exc:
        try:
            reason = json.loads(exc.read(ANSWER_LIMIT))["error"]
        except (OSError, ValueError, KeyError, TypeError):
            reason = f"the door said {exc.code}"
        raise Failed(f"Nobody was woken: {reason}") from exc
    except (OSError, ValueError) as exc:
        raise Failed(
            "The worker does not run at the moment; it is started again by itself, so try in a while."
        ) from exc
    if options.json:
        sys.stdout.write(json.dumps(said, indent=2) + "\n")
    else:
        _line(str(said.get("id", "")))


def _data(value: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def _line(text: str) -> None:
    """Lines that do nothing to a terminal, whatever a session says."""
    shown = (
        "".join(character if character.isprintable() else " " for character in line.expandtabs(4))
        for line in text.split("\n")
    )
    sys.stdout.write("\n".join(shown) + "\n")
