"""Reads the settings: ``config.json``, then ``PERRY_*``, the later wins. Nobody else reads the environment."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from controlplane.errors import SettingsError
from controlplane.settings.tree import Settings


class Loaded(msgspec.Struct, frozen=True):
    """Settings, the folder that they came from, and each one's source (``default``, ``file`` or a variable's name)."""

    settings: Settings
    folder: Path
    sources: Mapping[str, str]
    ignored: tuple[str, ...] = ()


ORIGINAL_KEYS = frozenset({"allowHostAccess", "tailscale", "terminal"})
"""Keys of the original's file whose features have not come here yet: they load, and are named as ignored."""


def leaves(
    kind: type[msgspec.Struct] = Settings, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every setting as its path in the file (camelCase) and its type."""
    for field in msgspec.structs.fields(kind):
        path = (*prefix, field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from leaves(field.type, path)
        else:
            yield path, field.type


def variable(path: tuple[str, ...]) -> str:
    """The environment variable of a setting: ``('ssh', 'firstPort')`` is ``PERRY_SSH_FIRST_PORT``."""
    words = "_".join("".join("_" + c if c.isupper() else c for c in part) for part in path)
    return "PERRY_" + words.upper()


NOT_SETTINGS = frozenset({"PERRY_CONFIG_DIR", "PERRY_TOKEN", "PERRY_URL"})
"""Variables of the same family that are read elsewhere."""


def load(folder: Path, environ: Mapping[str, str]) -> Loaded:
    """Read the settings. SettingsError names the key or variable that is wrong."""
    file = folder / "config.json"
    raw = _read(file)
    ignored = tuple(key for key in raw if key in ORIGINAL_KEYS)
    raw = {key: value for key, value in raw.items() if key not in ORIGINAL_KEYS}
    sources: dict[str, str] = {}
    known = {variable(path): (path, kind) for path, kind in leaves()}
    for path, _ in leaves():
        sources[".".join(path)] = "file" if _has(raw, path) else "default"
    for name, value in environ.items():
        if not name.startswith("PERRY_") or name in NOT_SETTINGS:
            continue
        if name not in known:
            raise SettingsError(f"The variable {name} is no setting of Perry; unset it or mend its name.")
        path, kind = known[name]
        _put(raw, path, parsed(value, kind))
        sources[".".join(path)] = name
    try:
        settings = msgspec.convert(raw, Settings, strict=False)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"A setting is wrong: {exc}; mend it in {file} or in the PERRY_* variables.") from exc
    return Loaded(settings, folder, sources, ignored)


def checked(text: str) -> Settings:
    """The settings of a file with this text and nothing else. SettingsError names the key that is wrong."""
    try:
        raw = {key: value for key, value in json.loads(text).items() if key not in ORIGINAL_KEYS}
        return msgspec.convert(raw, Settings, strict=False)
    except (json.JSONDecodeError, AttributeError, msgspec.ValidationError) as exc:
        raise SettingsError(f"It would not load: {exc}.") from exc


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{file} cannot be read ({exc}); mend its permissions or content.") from exc
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as exc:
        raise SettingsError(f"{file} is no JSON: {exc}; mend that line.") from exc
    if not isinstance(raw, dict):
        raise SettingsError(f"{file} must hold a JSON object; mend it.")
    return raw


def parsed(value: str, kind: Any) -> Any:
    """A value as it is spelt in a variable, for the file."""
    if get_origin(kind) is Mapping or value.startswith(("{", "[{")):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    is_list = get_origin(kind) is tuple or (get_origin(kind) is Annotated and get_origin(get_args(kind)[0]) is tuple)
    return [part.strip() for part in value.split(",") if part.strip()] if is_list else value


def _has(raw: Any, path: tuple[str, ...]) -> bool:
    for part in path:
        if not isinstance(raw, dict) or part not in raw:
            return False
        raw = raw[part]
    return True


def _put(raw: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        below = raw.setdefault(part, {})
        if not isinstance(below, dict):
            raise SettingsError(f"{part} in config.json must be an object; mend it.")
        raw = below
    raw[path[-1]] = value
