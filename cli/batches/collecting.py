"""Puts what the items of a batch left into files: a folder for each, by its workspace's name, and one JSON of all.

DIR/batch.json
DIR/<workspace>/{result.json,result.txt,log.txt,commits.patch}
"""

from pathlib import Path
from typing import Final

import msgspec

from cli import output
from cli.client import Client
from cli.errors import CliError, Misused, Refused
from protocol.batches import Batch, BatchEntry, BatchItemResult, BatchSummary, ReadBatchItem
from protocol.tasks import TaskResult
from protocol.wire import WORKSPACE_NAME_PATTERN, Wire

INDEX: Final = "batch.json"


class Line(Wire, frozen=True):
    """An item in ``batch.json``. ``folder`` is where its files are, beside it."""

    entry: BatchEntry
    result: TaskResult | None = None
    folder: str | None = None


class Index(Wire, frozen=True):
    """``batch.json``."""

    batch: BatchSummary
    items: list[Line]


class Folder:
    """The folder of one batch's results. Written again, a file is replaced."""

    def __init__(self, path: str) -> None:
        """Misused where it cannot be a folder."""
        self.path = Path(path).expanduser()
        self._lines: dict[int, Line] = {}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise Misused(f"The results cannot be put into {path!r}: {exc.strerror}; name another folder.") from exc

    def take(self, batch: str | None) -> None:
        """It is for this batch, or for one that is new. Refused where it has another's results."""
        try:
            before = msgspec.json.decode((self.path / INDEX).read_bytes(), type=Index).batch.id
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as exc:
            raise Refused(
                f"{self.path / INDEX} is there already, and is no batch of Perry's; name another folder."
            ) from exc
        if before != batch:
            raise Refused(f"{self.path} has the results of the batch {before}; name another folder.")

    def collect(self, client: Client, batch: Batch) -> None:
        """What is done and not here yet; then the JSON of all."""
        for entry in batch.items:
            if entry.done and entry.number not in self._lines:
                wanted = ReadBatchItem(id=batch.summary.id, number=entry.number)
                self._keep(client.call("batches.result", BatchItemResult, wanted, seconds=120))
        lines = [self._lines.get(entry.number) or Line(entry=entry) for entry in batch.items]
        self._write(self.path / INDEX, _json(Index(batch=batch.summary, items=lines)))

    def _keep(self, found: BatchItemResult) -> None:
        entry = found.entry
        folder = self._folder(entry.workspace)
        line = Line(entry=entry, result=found.result, folder=entry.workspace)
        self._write(folder / "result.json", _json(line))
        said = found.result.last_message if found.result is not None else None
        text = (said or entry.reason or entry.note or "").rstrip("\n")
        self._write(folder / "result.txt", "\n".join(output.clean_lines(text)).encode() + b"\n")
        if found.log is not None:
            self._write(folder / "log.txt", output.harmless(found.log.decode(errors="replace")).encode())
        if found.patch is not None:
            self._write(folder / "commits.patch", found.patch)
        self._lines[entry.number] = line

    def _folder(self, workspace: str) -> Path:
        """That of a workspace. What an agent answers, and what lies there already, lead nowhere else."""
        if not WORKSPACE_NAME_PATTERN.fullmatch(workspace):
            raise CliError(
                f"The agent told of {workspace!r}, which is no name of a workspace; nothing is written for it."
            )
        folder = self.path / workspace
        if folder.is_symlink():
            raise Refused(f"{folder} is a symbolic link; remove it, or name another folder.")
        try:
            folder.mkdir(exist_ok=True)
        except OSError as exc:
            raise self._full(folder, exc) from exc
        return folder

    def _write(self, file: Path, data: bytes) -> None:
        draft = file.with_name(f".{file.name}.new")
        try:
            # A link may lie there, as in a repository that somebody else wrote: "x" makes a new file or none.
            draft.unlink(missing_ok=True)
            with draft.open("xb") as new:
                new.write(data)
            draft.replace(file)
        except OSError as exc:
            raise self._full(file, exc) from exc

    def _full(self, file: Path, exc: OSError) -> CliError:
        return CliError(
            f"{file} cannot be written: {exc.strerror}. The batch goes on; `perry batches collect` gets it later."
        )


def _json(value: Wire) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
