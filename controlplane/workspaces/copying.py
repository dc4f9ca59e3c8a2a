"""What copies one workspace's volumes into another's: the container, its commands, and what they say. Pure."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from controlplane.errors import EngineOutOfSpace, StepFailed
from controlplane.ports import ContainerSpec, ExecOutput, Role, VolumeMount
from controlplane.workspaces.spec import Names, Request

ROOM_KEPT: Final = 512 << 20
"""Bytes that stay free: what runs here goes on writing."""

CAPABILITIES: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP")
DOCKER_CAPABILITIES: Final = ("SYS_ADMIN",)
"""Docker's own layers have attributes that only an administrator sees."""

VANISHED: Final = 24
CHANGED: Final = 23
"""What rsync ends with where files went, or could not be read to their end, while it read them."""

FILTERS: Final = (
    # Of Perry's own folders what the person was brought, and nothing that is of one workspace: its ssh host keys, its
    # tasks, wakes that it has still to tell. The copy would tell them once more.
    "--include=/home/.perry/credentials",
    "--exclude=/home/.perry/*",
    "--exclude=/home/.cache/perry",
    "--exclude=/home/.local/state/perry",
)

USED: Final = ("du", "-s", "-x", "-B1")
FREE: Final = ("df", "-B1", "--output=avail")

RENAME: Final = """\
cd "$1" || exit 1
[ -d "$2" ] && [ ! -L "$2" ] || exit 3
[ ! -e "$3" ] && [ ! -L "$3" ] || exit 4
mv -T -- "$2" "$3" && ln -s -- "$3" "$2" && chown -h "$(stat -c %u:%g -- "$3")" "$2"
"""
NOTHING_TO_RENAME: Final = 3
NAME_TAKEN: Final = 4

_PROGRESS = re.compile(r"(?:^|\r)\s*([0-9]+)\s+[0-9]+%")
_MOVED = re.compile(r"^Total transferred file size: ([0-9]+)", re.MULTILINE)


def copier(names: Names, source: Names, request: Request, labels: Mapping[str, str]) -> ContainerSpec:
    """A container that does nothing by itself. It has both workspaces' volumes, and no network."""
    parts = folders(request)
    volumes = {"home": (source.home_volume, names.home_volume), "docker": (source.docker_volume, names.docker_volume)}
    return ContainerSpec(
        name=names.copier,
        image=request.image,
        labels={**labels, "perry.role": Role.COPIER, "perry.claim": ""},
        entrypoint=("sleep",),
        command=("infinity",),
        volumes=tuple(
            mount
            for part in parts
            for mount in (
                VolumeMount(volumes[part][0], f"/from/{part}", read_only=True),
                VolumeMount(volumes[part][1], f"/to/{part}"),
            )
        ),
        cap_drop=("ALL",),
        cap_add=(*CAPABILITIES, *DOCKER_CAPABILITIES) if request.docker else CAPABILITIES,
        security_opt=("no-new-privileges",),
        pids=64,
        stop_seconds=0,
    )


def folders(request: Request) -> tuple[str, ...]:
    """What is copied, by the names that it has in the copier."""
    return ("home", "docker") if request.docker else ("home",)


def one_pass() -> list[str]:
    """Makes /to what /from is at the moment. What is the same already is left alone."""
    rsync = ["rsync", "-aHAXS", "--numeric-ids", "--delete", "--no-h", "--stats", "--info=progress2", "--outbuf=L"]
    return ["env", "LC_ALL=C", *rsync, *FILTERS, "/from/", "/to/"]


def copied(said: str) -> int | None:
    """How many bytes a pass has come to, by what it said last; None where it does not say."""
    found = _PROGRESS.findall(said)
    return int(found[-1]) if found else None


def moved(said: str) -> int:
    """Bytes that a pass which has ended found to be other than before."""
    found = _MOVED.search(said)
    return int(found[1]) if found else 0


class Room(msgspec.Struct, frozen=True):
    """Bytes that a copy takes, and that there are."""

    used: int
    free: int


def room(used: ExecOutput, free: ExecOutput) -> Room:
    """From what ``USED`` and ``FREE`` printed. A file that went while it was counted is no matter."""
    sums = [int(line.split()[0]) for line in used.stdout.decode(errors="replace").splitlines() if line[:1].isdigit()]
    left = [int(line) for line in free.stdout.decode(errors="replace").split() if line.isdigit()]
    if not sums or not left:
        raise StepFailed("How much is to be copied could not be found out; try again.")
    return Room(sum(sums), min(left))


def check_room(source: str, there_is: Room) -> None:
    """EngineOutOfSpace where the copy would fill the disk."""
    if there_is.used + ROOM_KEPT > there_is.free:
        raise EngineOutOfSpace(
            f"There is no room for a copy of {source!r}: it has {size(there_is.used)}, and where Docker keeps its "
            f"volumes {size(there_is.free)} are free; free some (see `docker system df`), then clone again."
        )


def failed(source: str, code: int, said: str) -> Exception:
    """Why a pass ended with ``code``, in rsync's words."""
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return EngineOutOfSpace(
            f"No space was left while {source!r} was copied; free some (see `docker system df`), then clone again."
        )
    lines = ["".join(c if c.isprintable() else " " for c in line).strip() for line in said.splitlines()]
    words = [line for line in lines if line.startswith(("rsync:", "rsync error:", "file has vanished"))]
    return StepFailed(f"{source!r} could not be copied: {' '.join(words[:2])[:300] or f'rsync ended with {code}'}.")


def size(count: int) -> str:
    """Bytes, for people."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
