"""Keeps what an item left, before its workspace may go: the end of its log, and its commits as patches.

    <config folder>/batches/<batch>/<number>.log
                                    <number>.patch

The files are the owner's alone. What they have comes out of workspaces: it is bounded, and is not read here.
"""

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.to_thread

from controlplane.batches.state import Item, Kept
from controlplane.errors import EngineError, NotFound, OutOfSpace, PerryError, TookTooLong, WorkerError
from controlplane.ports import ExecOutput
from controlplane.quoting import clean
from controlplane.workspaces.checkout import USER
from controlplane.workspaces.spec import HOME
from protocol.tasks import Commit, ReadTaskLogs, TaskLogs, TaskResult
from protocol.workspaces import Workspace, WorkspaceStatus

LOG_LIMIT: Final = 1 << 20
PATCH_LIMIT: Final = 4 << 20
GIT_SECONDS: Final = 60
SAID_SHOWN: Final = 300

_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_GIT: Final = ("timeout", "-k", "5", str(GIT_SECONDS), "git", "-c", "core.fsmonitor=false", "-c", "core.pager=cat")


class Results(Protocol):
    """What is asked of tasks here; see :class:`controlplane.tasks.service.TaskService`."""

    async def result(self, id_: str) -> TaskResult: ...

    async def logs(self, wanted: ReadTaskLogs) -> TaskLogs: ...


class Workspaces(Protocol):
    """What is asked of workspaces here; see :class:`controlplane.workspaces.service.Workspaces`."""

    async def get(self, name: str) -> Workspace: ...

    async def container(self, name: str) -> str: ...


class Runs(Protocol):
    """What is asked of Docker here; see :class:`controlplane.ports.Engine`."""

    async def exec(
        self, container: str, command: Sequence[str], *, user: str = "root", limit: int = 1 << 20
    ) -> ExecOutput: ...


class Collector:
    """``folder`` is the config folder's ``batches``."""

    def __init__(self, folder: Path, results: Results, workspaces: Workspaces, engine: Runs) -> None:
        self._folder = folder
        self._results = results
        self._workspaces = workspaces
        self._engine = engine

    async def collect(self, item: Item) -> Kept:
        """Read and keep it. Safe to run twice. What it raises may succeed later."""
        assert item.task is not None
        result = await self._results.result(item.task)
        kept = Kept(
            said=_line(result.last_message),
            commits=len(result.commits),
            unpushed=result.unpushed,
            uncommitted=result.uncommitted,
            note=result.unknown,
        )
        if result.task.started is None:
            return Kept()  # It never began.
        if (why := await self._not_there(item.workspace)) == "":
            return kept  # It is gone, with all that it had.
        if why is not None:
            return _missing(kept, why)
        try:
            await self._keep_log(item)
            unread = await self._keep_patch(item, result.commits) or result.unknown
        except (WorkerError, EngineError, TookTooLong, OutOfSpace, TimeoutError):
            raise
        except PerryError as exc:
            return _missing(kept, exc.message)
        return kept if unread is None else _missing(kept, unread)

    async def _not_there(self, name: str) -> str | None:
        """Why nothing can be read of a workspace; empty where it is gone, None where it can."""
        try:
            workspace = await self._workspaces.get(name)
        except NotFound:
            return ""
        return None if workspace.status is WorkspaceStatus.RUNNING else f"The workspace {name!r} is {workspace.status}."

    async def _keep_log(self, item: Item) -> None:
        assert item.task is not None
        text, offset = "", -LOG_LIMIT
        while True:
            piece = await self._results.logs(ReadTaskLogs(id=item.task, offset=offset, limit=LOG_LIMIT))
            text += piece.text
            if not offset < piece.next < piece.size or not piece.text or len(text) >= LOG_LIMIT:
                break
            offset = piece.next
        await self._write(self._file(item.batch, item.number, "log"), text.encode()[-LOG_LIMIT:])

    async def _keep_patch(self, item: Item, commits: tuple[Commit, ...]) -> str | None:
        """Why there is none, where there should be one: the commits are in the workspace then, and there alone."""
        ids = [commit.id for commit in commits if _COMMIT.fullmatch(commit.id)]
        if not ids:
            return None
        container = await self._workspaces.container(item.workspace)
        git = [*_GIT, "-C", f"{HOME}/{item.workspace}"]
        # Exactly these, as they are told: the newest first. Written are the oldest first. One alone would mean all that
        # came after it.
        which = ["--no-walk=unsorted", *ids] if len(ids) > 1 else ["-1", *ids]
        made = await self._engine.exec(
            container,
            [*git, "format-patch", "--stdout", "--always", *which],
            user=USER,
            limit=PATCH_LIMIT,
        )
        if made.truncated:
            return f"Its commits are more than {PATCH_LIMIT >> 20} MiB as a patch."
        if made.exit_code != 0:
            return "git made no patch of its commits."
        await self._write(self._file(item.batch, item.number, "patch"), made.stdout)
        return None

    # --- the files

    async def read(self, batch: str, number: int, kind: str) -> bytes | None:
        """What was kept; None where there is nothing."""
        try:
            return await anyio.to_thread.run_sync(self._file(batch, number, kind).read_bytes)
        except FileNotFoundError:
            return None

    async def forget(self, batches: Iterable[str]) -> None:
        """The files of these batches are wanted no more."""
        for batch in batches:
            folder = self._folder / batch
            if folder.exists():
                await anyio.to_thread.run_sync(shutil.rmtree, folder, True)

    def _file(self, batch: str, number: int, kind: str) -> Path:
        return self._folder / batch / f"{number}.{kind}"

    async def _write(self, file: Path, data: bytes) -> None:
        try:
            await anyio.to_thread.run_sync(_put, file, data)
        except OSError as exc:
            raise OutOfSpace(f"{file} cannot be written ({exc.strerror}); make room there.") from exc


def _missing(kept: Kept, why: str) -> Kept:
    return Kept(said=kept.said, commits=kept.commits, unpushed=kept.unpushed, uncommitted=kept.uncommitted, missing=why)


def _put(file: Path, data: bytes) -> None:
    """Whole or not at all."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as out:
        out.write(data)
    draft.rename(file)


def _line(text: str | None) -> str | None:
    if text is None:
        return None
    line = clean(text)
    return line[:SAID_SHOWN] + ("…" if len(line) > SAID_SHOWN else "")
