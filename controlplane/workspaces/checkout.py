"""The user's repositories inside a workspace: the clone, and what would be lost with it.

Everything runs as user ``workspace`` in the container. Arguments never pass through a shell.
"""

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio

from controlplane.errors import CloneFailed, NotReady
from controlplane.ports import Engine, ExecOutput, Uploads
from controlplane.workspaces import repository
from controlplane.workspaces.environment import in_environment
from controlplane.workspaces.spec import HOME
from protocol import reflog
from protocol.workspaces import UnsavedWork

USER = "workspace"
CLONES = f"{HOME}/.cache/perry/clones"
CLONE_SECONDS = 3600
LOOK_SECONDS = 20
CHUNK = 1 << 20
LINES_SHOWN = 20

GIT_ENV = {
    "GIT_TERMINAL_PROMPT": "0",
    # An unknown server is an error, never a question and never trusted on first use.
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes",
    "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",
    "LC_ALL": "C.UTF-8",
    "HOME": HOME,
}

Progress = Callable[[str], None]


class Checkout:
    """Clones repositories into workspaces and looks after what is in them."""

    def __init__(self, engine: Engine, uploads: Uploads) -> None:
        self._engine = engine
        self._uploads = uploads

    async def clone(
        self,
        container: str,
        name: str,
        clone: str,
        *,
        branch: str | None,
        new_branch: str | None,
        origin: str | None,
        progress: Progress,
    ) -> bool:
        """Clone to ``~/<name>``; False where that repository is there already. ``new_branch`` is checked out in the
        end, and made where the repository has none of that name.

        The project folder appears whole or not at all. CloneFailed has git's own words.
        """
        target = f"{HOME}/{name}"
        upload = repository.upload_id(clone)
        if await self._is_there(container, target, clone if upload is None else origin):
            if upload is not None:
                self._uploads.discard(upload)
            return False
        # A clone that an ended control plane left running would go on writing.
        await self._run(container, ["pkill", "-u", USER, "-f", f"{CLONES}/"])
        await self._must(container, ["rm", "-rf", CLONES], "clear an unfinished clone away")
        await self._must(container, ["mkdir", "-p", CLONES], "make a folder for the clone")
        partial = f"{CLONES}/{secrets.token_hex(4)}"
        if upload is not None:
            source = f"{CLONES}/bundle"
            await self._send_bundle(container, upload, source)
            await self._git(container, source, partial, branch=branch, progress=progress, shown="the local repository")
            await self._switch(container, partial, new_branch)
            await self._set_origin(container, partial, origin)
        else:
            await self._git(container, clone, partial, branch=branch, progress=progress, shown=repository.shown(clone))
            await self._switch(container, partial, new_branch)
        await self._must(container, ["mv", "-T", partial, target], f"put the clone into {target}")
        if upload is not None:
            self._uploads.discard(upload)
        await self._must(container, ["rm", "-rf", CLONES], "clear up after the clone")
        return True

    async def _is_there(self, container: str, target: str, wanted: str | None) -> bool:
        """Whether the clone was made before. CloneFailed where something else is in its place."""
        if (await self._run(container, ["test", "-e", target])).exit_code != 0:
            return False
        if (await self._run(container, ["rmdir", target])).exit_code == 0:
            return False
        remote = await self._run(container, ["git", "-C", target, "remote", "get-url", "origin"])
        present = remote.stdout.decode(errors="replace").strip()
        if wanted is None or (present and repository.same(present, wanted)):
            return True
        what = f"a clone of {repository.shown(present)}" if present else "no clone"
        raise CloneFailed(
            f"{target} exists already and is {what}; move it away in the workspace, then start again with --clone."
        )

    async def _send_bundle(self, container: str, upload: str, path: str) -> None:
        source = self._uploads.path(upload)
        if source is None:
            raise CloneFailed(
                "The uploaded repository is no longer here; run `perry start`, or `perry dispatch` of a task or batch, "
                "again with --clone."
            )
        output = await self._engine.exec(
            container, ["dd", f"of={path}", "bs=1M", "status=none"], user=USER, stdin=_chunks(source)
        )
        if output.exit_code != 0:
            raise CloneFailed(f"The repository could not be copied into the workspace: {_last_words(output)}")

    async def _git(
        self, container: str, source: str, target: str, *, branch: str | None, progress: Progress, shown: str
    ) -> None:
        command = ["timeout", str(CLONE_SECONDS), "git", "clone", "--progress"]
        if branch is not None:
            command += ["--branch", branch]
        command += ["--", source, target]
        said = ""
        code = -1
        # With the person's variables, as where they clone by hand: a proxy, a certificate.
        quiet = in_environment("env", *(f"{key}={value}" for key, value in GIT_ENV.items()), *command)
        async for stream, data in self._engine.exec_stream(container, quiet, user=USER, cwd=HOME):
            if stream == "exit":
                code = int(data)
                continue
            said = (said + data.decode(errors="replace"))[-20_000:]
            if lines := [line for line in said.replace("\r", "\n").split("\n") if line.strip()]:
                progress(_clean(lines[-1]))
        if code == 0:
            return
        if code == 124:
            raise CloneFailed(f"Cloning {shown} took longer than an hour and was ended; start again to try again.")
        words = _words(said)
        advice = repository.advice(words)
        raise CloneFailed(f"git could not clone {shown}: {words}" + (f" — {advice}" if advice else ""))

    async def _switch(self, container: str, folder: str, branch: str | None) -> None:
        if branch is None:
            return
        git = ["git", "-C", folder]
        if (await self._run(container, [*git, "switch", "-q", branch])).exit_code != 0:
            await self._must(container, [*git, "switch", "-q", "-c", branch], f"make the branch {branch!r}")

    async def _set_origin(self, container: str, folder: str, origin: str | None) -> None:
        git = ["git", "-C", folder]
        if origin is not None:
            await self._must(container, [*git, "remote", "set-url", "origin", origin], "set the clone's remote")
        else:
            # `git remote remove` would take the bundle's other branches along.
            await self._must(container, [*git, "config", "--remove-section", "remote.origin"], "forget the bundle")

    async def unsaved(self, container: str) -> UnsavedWork:
        """What is committed nowhere or pushed nowhere, in all repositories up to three folders below home.

        A repository that git refuses (not the user's, broken) may have something: ``unknown`` names it.
        """
        find = ["find", HOME, "-maxdepth", "4", "-name", ".git", "-not", "-path", f"{HOME}/.*/*", "-prune"]
        uncommitted: list[str] = []
        unpushed: list[str] = []
        unknown: str | None = None
        try:
            with anyio.fail_after(LOOK_SECONDS):
                found = (await self._run(container, [*find, "-print"])).stdout.decode(errors="replace").splitlines()
                for folder in sorted(path.removesuffix("/.git") for path in found):
                    label = folder.removeprefix(f"{HOME}/")
                    git = ["git", "-c", "core.fsmonitor=false", "-C", folder]
                    status = await self._run(container, [*git, "status", "--porcelain"])
                    if status.exit_code != 0:
                        unknown = f"git cannot look into {_clean(label)}."
                    uncommitted += _lines(label, status)
                    unpushed += _lines(label, await self._unpushed(container, git))
                    unpushed += _lines(label, await self._run(container, [*git, "stash", "list"]))
        except TimeoutError:
            unknown = "Looking took too long."
        return UnsavedWork(uncommitted=uncommitted, unpushed=unpushed, unknown=unknown)

    async def _unpushed(self, container: str, git: list[str]) -> ExecOutput:
        """Commits that no remote has, and that did not come from elsewhere either, one a line."""
        commits = [*git, "log", "--oneline", "--branches", "HEAD", "--not", "--remotes"]
        found = await self._run(container, commits)
        if not found.stdout.strip():
            return found
        said = [await self._run(container, [*git, *question]) for question in (reflog.CHANGES, reflog.REMOTES)]
        others = reflog.elsewhere(*(each.stdout.decode(errors="replace") for each in said))
        rest = await self._run(container, [*commits, *others]) if others else found
        return rest if rest.exit_code == 0 else found

    async def _run(self, container: str, command: list[str]) -> ExecOutput:
        return await self._engine.exec(container, command, user=USER, cwd=HOME, env=GIT_ENV, limit=1 << 16)

    async def _must(self, container: str, command: list[str], what: str) -> None:
        output = await self._run(container, command)
        if output.exit_code != 0:
            raise NotReady(f"The workspace could not {what}: {_last_words(output)}")


async def _chunks(source: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(source, "rb") as file:
        while chunk := await file.read(CHUNK):
            yield chunk


def _lines(label: str, output: ExecOutput) -> list[str]:
    lines = [line for line in output.stdout.decode(errors="replace").splitlines() if line.strip()]
    shown = [f"{label}: {_clean(line)}" for line in lines[:LINES_SHOWN]]
    return shown + ([f"{label}: and {len(lines) - LINES_SHOWN} more"] if len(lines) > LINES_SHOWN else [])


def _clean(text: str) -> str:
    """Without control characters: what a workspace says ends up on people's terminals."""
    return "".join(character if character.isprintable() else " " for character in text).strip()[:300]


def _words(said: str) -> str:
    """What git said last, without its progress."""
    lines = [_clean(line) for line in said.replace("\r", "\n").split("\n")]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ERROR:", "Host key", "ssh:"))]
    return " ".join(telling[-4:] or [line for line in lines if line][-2:]) or "it gave no reason"


def _last_words(output: ExecOutput) -> str:
    text = _clean((output.stderr or output.stdout).decode(errors="replace"))
    return text or f"exit code {output.exit_code}"
