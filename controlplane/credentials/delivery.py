"""Hands what was gathered to the receiver in a workspace, and hears what came of it. What it says is not trusted."""

from collections.abc import Sequence
from importlib import resources
from typing import Final, TypeVar

import anyio
import msgspec

from controlplane.credentials.sources import Gathered
from controlplane.errors import EngineError, NotReady, StepFailed, TookTooLong
from controlplane.ports import Engine, Process
from controlplane.workspaces.checkout import USER

SECONDS: Final = 120
ANSWER_LIMIT: Final = 4 << 20
CHUNK: Final = 1 << 18
SHOWN: Final = 300

LOADER: Final = "import sys; i = sys.stdin.buffer; exec(compile(i.read(int(i.readline())), 'receiver', 'exec'))"
"""Takes the program from its input, so that arguments hold nothing but this."""

PROGRAM: Final = resources.files("controlplane.credentials").joinpath("receiver.py").read_bytes()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a delivery did; paths are below home, and the second of a pair is why."""

    brought: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()


class _Needs(msgspec.Struct):
    need: list[int] = []
    error: str | None = None
    missing: bool = False


async def deliver(engine: Engine, container: str, name: str, gathered: Gathered) -> Outcome:
    """Bring what is not there yet. NotReady where the workspace stops meanwhile."""
    try:
        with anyio.fail_after(SECONDS):
            return await _deliver(engine, container, name, gathered)
    except TimeoutError:
        raise TookTooLong(f"Bringing credentials into {name!r} took longer than {SECONDS} s; try again.") from None
    except EngineError:
        await _refuse_stopped(engine, container, name)
        raise


async def _deliver(engine: Engine, container: str, name: str, gathered: Gathered) -> Outcome:
    command = ["timeout", str(SECONDS), "python3", "-I", "-S", "-c", LOADER]
    items = gathered.items
    request = {
        "complete": True,
        "spared": list(gathered.spared),
        "items": [
            {"path": i.path, "merge": i.merge, "mode": i.mode, "sha256": i.sha256, "size": len(i.content)}
            for i in items
        ],
    }
    async with engine.process(container, command, user=USER) as process:
        answers = _Answers(process)
        head = f"{len(PROGRAM)}\n".encode() + PROGRAM + msgspec.json.encode(request) + b"\n"
        await _write(process, head)
        needs = await answers.next(_Needs)
        if needs is not None and needs.error is None:
            for index in needs.need:
                if not 0 <= index < len(items):
                    raise StepFailed(f"What runs in {name!r} to receive credentials asked for what there is not.")
                await _write(process, items[index].content)
            outcome = await answers.next(Outcome)
            if outcome is not None:
                return outcome
        if needs is not None and needs.missing:
            raise StepFailed(
                f"{name!r} has no place for credentials, since its image is older than this Perry: "
                f"`perry agent build`, `perry stop {name}`, `docker rm {container}`, then `perry start {name}`."
            )
        if needs is not None and needs.error is not None:
            raise StepFailed(f"Credentials could not be put into {name!r}: {clean(needs.error)}")
        await process.end_input()
        words = answers.words()
    await _refuse_stopped(engine, container, name)
    raise StepFailed(f"Credentials could not be put into {name!r}: {words or 'it ended without a word'}")


async def _refuse_stopped(engine: Engine, container: str, name: str) -> None:
    # Docker knows that a command was killed a moment before it knows that its container has ended.
    for _ in range(5):
        state = await engine.inspect(container)
        if state is None or not state.running:
            raise NotReady(
                f"{name!r} was stopped while credentials were brought in; its next start brings them, whole."
            )
        await anyio.sleep(0.1)


async def _write(process: Process, data: bytes) -> None:
    for start in range(0, len(data), CHUNK):
        await process.write(data[start : start + CHUNK])


Answer = TypeVar("Answer", bound=msgspec.Struct)


class _Answers:
    """Lines of JSON from the receiver, and what it complains of."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._said = b""
        self._complaints = b""

    async def next(self, kind: type[Answer]) -> Answer | None:
        """The next answer; None where it has ended."""
        while b"\n" not in self._said:
            if len(self._said) > ANSWER_LIMIT or (chunk := await self._process.read()) is None:
                return None
            stream, data = chunk
            if stream == "stdout":
                self._said += data
            else:
                self._complaints = (self._complaints + data)[-4096:]
        line, _, self._said = self._said.partition(b"\n")
        try:
            return msgspec.json.decode(line, type=kind)
        except msgspec.DecodeError:
            self._complaints += line[:SHOWN]
            return None

    def words(self) -> str:
        """The last it said that was no answer."""
        lines = (self._complaints + b"\n" + self._said).decode(errors="replace").strip().splitlines()
        return clean(lines[-1]) if lines else ""


def clean(text: str, secrets: Sequence[str] = ()) -> str:
    """What came out of a workspace, for a person's terminal: one line, no control characters, none of the secrets."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return "".join(character if character.isprintable() else " " for character in text).strip()[:SHOWN]
