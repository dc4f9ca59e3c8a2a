"""``perry wake``: wakes the assistant with a text."""

import secrets
import sys
import time

import click
import msgspec

from cli import output
from cli.client import Client
from cli.commands.parameters import as_json
from cli.errors import CliError, Lost, Misused, NotReady
from protocol.wake import TEXT_LIMIT, WAKE_PATH, DoorAnswer, WakeMode

RETRIES = 5


@click.command()
@click.argument("text")
@click.option(
    "--mode",
    type=click.Choice([each.value for each in WakeMode]),
    default=WakeMode.NOW.value,
    show_default=True,
    help="Whether the assistant looks at it at once, or with its next heartbeat.",
)
@as_json
def wake(text: str, mode: str, as_json: bool) -> None:
    """Wake your assistant with a text; `-` reads it from standard input.

    It returns when the agent has the wake on its disk; `perry wakes show` says what became of it.
    """
    if text == "-":
        text = sys.stdin.read(TEXT_LIMIT + 1)
    if not text.strip():
        raise Misused("The text is empty; say what your assistant is to know.")
    found = send(Client(), text, mode)
    if as_json:
        output.data(found)
    else:
        output.line(output.clean(found.id or ""))


def send(client: Client, text: str, mode: str) -> DoorAnswer:
    """Knock at the control plane's door until it answers; asked twice with one key, it is one wake."""
    body = msgspec.json.encode({"text": text, "mode": mode})
    headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
    for again in range(RETRIES):
        try:
            status, answer = client.post(WAKE_PATH, body, headers)
            break
        except Lost:
            if again == RETRIES - 1:
                raise
            time.sleep(2.0**again)
    return read(client, status, answer)


def read(client: Client, status: int, answer: bytes) -> DoorAnswer:
    """What the door said. CliError with its own words where it took nothing."""
    try:
        said = msgspec.json.decode(answer, type=DoorAnswer)
    except msgspec.DecodeError:
        raise client.refusal(status, answer) from None
    if status == 200 and said.ok:
        return said
    kinds: dict[int, type[CliError]] = {400: Misused, 413: Misused, 503: NotReady}
    raise kinds.get(status, CliError)(said.error or f"The agent answered with status {status}.")
