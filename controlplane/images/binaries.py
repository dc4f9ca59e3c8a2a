"""Go programs and Debian's root file system, made on this machine by the tools it has."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import anyio
import anyio.abc
from anyio.streams.text import TextReceiveStream

from controlplane.errors import NotReady, StepFailed
from controlplane.images.plan import GoBinary

Line = Callable[[str], None]

ROOTFS_OPTIONS = (
    "--variant=minbase",
    "--include=ca-certificates",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=force-unsafe-io",
)


def find_go(checkout: Path, env: Mapping[str, str]) -> str:
    """The Go command: the one on the PATH, else the checkout's own."""
    own = checkout / ".build" / "go" / "bin" / "go"
    found = shutil.which("go", path=env.get("PATH")) or (str(own) if own.exists() else None)
    if found is None:
        raise NotReady("No Go toolchain is here; install one, or let `make quickstart` bring its own.")
    return found


async def build_go(checkout: Path, binary: GoBinary, env: Mapping[str, str], line: Line) -> Path:
    """Build the program, static, into ``.build/bin``. The compiler runs niced: workspaces go first."""
    go = find_go(checkout, env)
    target = checkout / ".build" / "bin" / binary.name
    target.parent.mkdir(parents=True, exist_ok=True)
    # Under another name first: a program that is being copied into an image must not change meanwhile.
    fresh = target.with_name(f".{binary.name}.new")
    tags = ["-tags", ",".join(binary.tags)] if binary.tags else []
    command = [go, "build", "-trimpath", *tags, "-ldflags", "-s -w", "-o", str(fresh), binary.package]
    if (nice := shutil.which("nice", path=env.get("PATH"))) is not None:
        command = [nice, "-n", "10", *command]
    said = await _run(
        command, cwd=checkout / binary.module, env={**env, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}, line=line
    )
    if said is not None:
        raise StepFailed(f"Go could not build {binary.name}: {said}")
    os.replace(fresh, target)
    return target


@asynccontextmanager
async def debian_rootfs(env: Mapping[str, str], line: Line) -> AsyncIterator[Path]:
    """A tarball of a minimal trixie, made of Debian's packages. It is gone at the end of the block."""
    if shutil.which("mmdebstrap", path=env.get("PATH")) is None:
        raise NotReady(
            "No container registry answers, and mmdebstrap, which makes a Debian from packages, is not installed; "
            "run `sudo apt-get install mmdebstrap debian-archive-keyring` and build again."
        )
    with tempfile.TemporaryDirectory(prefix="perry-rootfs-") as folder:
        tarball = Path(folder) / "rootfs.tar"
        command = [*await _as_root(env), "mmdebstrap", *ROOTFS_OPTIONS, "trixie", str(tarball)]
        said = await _run(command, cwd=Path(folder), env=env, line=line)
        if said is not None:
            raise StepFailed(f"Debian's packages could not be made into a base image: {said}")
        yield tarball


async def _as_root(env: Mapping[str, str]) -> list[str]:
    """What makes a command root's, where that takes no question; else nothing, and mmdebstrap tries without."""
    if os.geteuid() == 0 or shutil.which("sudo", path=env.get("PATH")) is None:
        return []
    asked = await anyio.run_process(["sudo", "-n", "true"], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, check=False)
    proxies = [f"{name}={env[name]}" for name in ("http_proxy", "https_proxy", "no_proxy") if name in env]
    return ["sudo", "-n", "env", *proxies] if asked.returncode == 0 else []


async def _run(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], line: Line) -> str | None:
    """None when it succeeded, else the last thing it said. Cancelled: the command is ended."""
    try:
        with anyio.CancelScope(shield=True):
            # Cancelled in the middle of this, the process would be nobody's.
            process = await anyio.open_process(
                command, cwd=cwd, env=dict(env), stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
            )
        async with process:
            try:
                last = await _last_words(process, line)
                status = await process.wait()
            except BaseException:
                # mmdebstrap has mounts to undo, go its compilers to end; leaving the block kills what remains.
                with (
                    anyio.CancelScope(shield=True),
                    anyio.move_on_after(5),
                    contextlib.suppress(ProcessLookupError, PermissionError),
                ):
                    process.terminate()
                    await process.wait()
                raise
    except OSError as exc:
        return f"{command[0]} cannot be run ({exc})"
    if status == 0:
        return None
    return " / ".join(last[-3:]) or f"it ended with status {status} and no word"


async def _last_words(process: anyio.abc.Process, line: Line) -> list[str]:
    """Pass on what it says until it is done; the last few lines of that."""
    assert process.stdout is not None
    last: list[str] = []
    pending = ""
    async for chunk in TextReceiveStream(process.stdout, errors="replace"):
        *lines, pending = (pending + chunk).split("\n")
        for text in filter(None, (text.rstrip() for text in lines)):
            last = [*last[-4:], text]
            line(text)
    return [*last, pending.strip()] if pending.strip() else last
