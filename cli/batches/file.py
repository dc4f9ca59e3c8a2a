"""A batch as a file of TOML: the options of ``perry dispatch`` by their names, and items with fields of their own."""

from pathlib import Path

import msgspec

from cli.errors import Misused


class Own(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """``[[items]]``: what is one item's own. ``workspace`` is the name of its workspace."""

    item: str | int
    workspace: str | None = None
    task: str | None = None
    agent: str | None = None
    model: str | None = None
    timeout: str | None = None
    clone: str | None = None
    branch: str | None = None


class BatchFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """The whole file. What the command line says as well, the command line decides."""

    each: str | list[str | int] | None = None
    items: list[Own] = []
    task: str | None = None
    name: str | None = None
    agent: str | None = None
    model: str | None = None
    timeout: str | None = None
    clone: str | None = None
    branch: str | None = None
    parallel: int | None = None
    wake: str | None = None
    wake_each: bool | None = None
    fallback: str | None = None
    remove_when: str | None = None
    reuse: bool | None = None
    collect: str | None = None


def read(path: str) -> BatchFile:
    """Misused where it cannot be read, or says something that is not known."""
    try:
        return msgspec.toml.decode(Path(path).read_bytes(), type=BatchFile)
    except OSError as exc:
        raise Misused(f"The batch {path!r} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise Misused(f"The batch {path!r} is not UTF-8; convert it first.") from exc
    except msgspec.DecodeError as exc:
        hint = (
            "; options are written as on the command line, such as remove-when" if "unknown field" in str(exc) else ""
        )
        raise Misused(f"The batch {path!r} is not right: {exc}{hint}.") from exc
