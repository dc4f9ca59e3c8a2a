"""The use cases of ``perry config``."""

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from controlplane.config import edit
from controlplane.errors import Conflict, InvalidInput, OutOfSpace, PerryError, SettingsError
from controlplane.secret_files import read_secret
from controlplane.settings import Loaded, Settings, checked, leaves, parsed
from controlplane.settings.personal import masked
from protocol.config import Config, ConfigChange, ConfigValue
from protocol.folders import CONFIG_FILE

CREDENTIAL_FILE = "tailnet.credentialFile"

READ_ANEW = (
    "credentials.",
    "git.",
    "github.",
    "scripts.",
    "dotfiles.",
    "agents.",
    "mcpServers.",
    "skills.",
    "ssh.authorizedKeys.",
    "ssh.knownHosts.",
    "ssh.global.",
    "ssh.workspaces.",
    "ssh.autoAuthorizeHostKeys.",
)
"""Settings that count without a restart."""

_LOOKS_SECRET = re.compile(r"tskey-|hskey-|gh[oprsu]_|github_pat_|sk-[A-Za-z0-9]|xox[bp]-|-----BEGIN")
_NAMES_SECRET = re.compile(r"(?i)(token|secret|password|auth_?key|api_?key|credential)$")


class Configuration:
    """Changes the file that the settings were read from. What runs goes on with what it was started with."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def get(self) -> Config:
        """Every setting with its source, in the order of the settings' declaration, as it counts now."""
        loaded = self._loaded
        raw, now = self._in_file()
        items: list[ConfigValue] = []
        for key, given in loaded.sources.items():
            settings, source = loaded.settings, given
            if now is not None and given in ("default", "file") and not _needs_restart(key):
                settings, source = now, "file" if _has(raw, key) else "default"
            items.append(ConfigValue(key=key, value=masked(key, _value(settings, key)), source=source))
        return Config(folder=str(loaded.folder), items=items)

    def _in_file(self) -> tuple[Any, Settings | None]:
        """What the file says by now; None where it would not load, and what is read anew stays as it was."""
        try:
            text = _read(self._loaded.folder / CONFIG_FILE) or "{}"
            return json.loads(text), checked(text)
        except (PerryError, ValueError):
            return {}, None

    def set(self, key: str, value: str) -> ConfigChange:
        """Put a value into the file, spelt as in a variable of the environment. InvalidInput says what is wrong."""
        if _LOOKS_SECRET.match(value):
            raise InvalidInput(_no_secret(key))
        path, kind = self._known(key)
        if key == CREDENTIAL_FILE and value:
            read_secret(self._loaded.folder / Path(value).expanduser())

        choices = get_args(kind) if get_origin(kind) is Literal else ()
        if choices and value not in choices:
            raise InvalidInput(f"{key} cannot be {value!r}; give one of {', '.join(choices)}.")

        def changed(text: str) -> str:
            new = edit.with_value(text, path, parsed(value, kind))
            typed = _value(checked(new), key)
            if masked(key, typed) != typed:
                raise InvalidInput(_no_secret(key))
            # "22" is a number where a number is wanted.
            return edit.with_value(text, path, typed) if isinstance(typed, bool | int | float) else new

        return self._change(key, changed)

    def unset(self, key: str) -> ConfigChange:
        """Take a value out of the file, so that the default counts."""
        path, _ = self._known(key)
        return self._change(key, lambda text: edit.without(text, path))

    def _known(self, key: str) -> tuple[tuple[str, ...], Any]:
        known = {".".join(path): (path, kind) for path, kind in leaves()}
        if key not in known:
            if _NAMES_SECRET.search(key):
                raise InvalidInput(_no_secret(key))
            if table := next((each for each in known if key.startswith(f"{each}.")), None):
                raise InvalidInput(
                    f"{key} is an entry of the table {table}; write it into {CONFIG_FILE} yourself, as "
                    "docs/howto/credentials.md shows it."
                )
            raise InvalidInput(f"There is no setting {key!r}{_near(key, known)}; docs/settings.md lists them all.")
        source = self._loaded.sources.get(key, "default")
        if source not in ("default", "file"):
            raise Conflict(
                f"{key} comes from the variable {source}, which wins over the file; "
                "start the agent without it, then set it here."
            )
        return known[key]

    def _change(self, key: str, changed: Callable[[str], str]) -> ConfigChange:
        # A file that is linked to, as from a folder of dotfiles, stays where it is.
        file = (self._loaded.folder / CONFIG_FILE).resolve()
        text = _read(file)
        try:
            new = changed(text)
            settings = checked(new or "{}")
        except SettingsError as exc:
            raise InvalidInput(f"{file} was not changed. {exc.message}") from exc
        except ValueError as exc:
            raise InvalidInput(f"{file} cannot be changed: {exc}; mend it first.") from exc
        if new != text:
            _write(file, new)
        value = _value(settings, key)
        return ConfigChange(
            key=key,
            value=masked(key, value),
            file=str(file),
            restart=_needs_restart(key) and value != _value(self._loaded.settings, key),
        )


def _needs_restart(key: str) -> bool:
    """What workspaces are given is read anew each time."""
    return not f"{key}.".startswith(READ_ANEW)


def _near(key: str, known: Iterable[str]) -> str:
    """A key that differs in its case or lacks its section."""
    near = [each for each in known if each.lower() == key.lower() or each.lower().endswith(f".{key.lower()}")]
    return f" (do you mean {near[0]}?)" if near else ""


def _no_secret(key: str) -> str:
    instead = (
        f"write it into a file that only you can read (chmod 600), and name that file with {CREDENTIAL_FILE}"
        if key.startswith(("tailnet", "tailscale", "headscale"))
        else "`perry secrets set` takes it on standard input; docs/howto/credentials.md says how a setting names it"
    )
    return f"{key} would put a secret into {CONFIG_FILE}, and it has stood in a command line now; {instead}."


def _has(raw: Any, key: str) -> bool:
    """Whether a setting stands in the file."""
    for part in key.split("."):
        if not isinstance(raw, dict) or part not in raw:
            return False
        raw = raw[part]
    return True


def _value(settings: Settings, key: str) -> Any:
    value: Any = msgspec.json.decode(msgspec.json.encode(settings))
    for part in key.split("."):
        value = value[part]
    return value


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as exc:
        raise Conflict(f"{file} cannot be read ({exc}); mend its permissions or content.") from exc


def _write(file: Path, text: str) -> None:
    """Whole or not at all, for its owner alone; under sudo that is whom the folder belongs to."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w") as opened:
            opened.write(text)
            opened.flush()
            owner = file.parent.stat()
            if os.geteuid() == 0 and owner.st_uid != 0:
                os.fchown(handle, owner.st_uid, owner.st_gid)
            os.fsync(handle)
        partial.replace(file)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise OutOfSpace(f"{file} cannot be written ({exc.strerror}); nothing was changed.") from exc
