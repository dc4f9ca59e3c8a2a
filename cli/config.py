"""Which control plane the commands speak to, and with which token.

The first of these that is there: ``PERRY_URL``; ``worker`` in ``client.json`` (``host``, ``host:port`` or a URL); where
no control plane ever ran on this machine, the one that the tailnet calls ``perry``; the control plane of this machine,
whose address is in ``config.json``. The token is ``PERRY_TOKEN``; else the one in
``client.json`` for the control plane that this file names; else, for an address of this machine, the file that the
control plane keeps in its folder. A token is never sent to a control plane that it does not belong to.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from cli.errors import CliError, Misused, NotAuthorised
from protocol.folders import CLIENT_FILE, CONFIG_FILE, TOKEN_FILE, config_folder
from protocol.wire import DEFAULT_PORT

FOUND: Final = "this device's tailnet"
"""The source of a control plane that nobody configured."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A control plane. ``url`` has no slash at its end; ``source`` says what named it, for people."""

    url: str
    host: str
    port: int
    secure: bool
    path: str
    local: bool
    source: str
    folder: Path


def folder() -> Path:
    """Perry's folder of configuration."""
    return config_folder(os.environ)


def target(environ: Mapping[str, str] | None = None, *, find: bool = True) -> Target:
    """The control plane to speak to. Misused where its address is wrong. Without ``find`` the tailnet is not asked."""
    environ = os.environ if environ is None else environ
    where = config_folder(environ)
    if url := environ.get("PERRY_URL"):
        return _parse(url, "PERRY_URL", where)
    worker = client_settings(where).get("worker")
    if worker:
        return _parse(str(worker), str(where / CLIENT_FILE), where)
    if find and not _runs_here(environ, where):
        from cli import discovery

        if discovery.found(DEFAULT_PORT):
            return _parse(discovery.NAME, FOUND, where)
    return own(environ)


def _runs_here(environ: Mapping[str, str], where: Path) -> bool:
    """Whether this machine's own control plane is meant: it ran before, is configured, or somebody gives its token."""
    files = any((where / name).exists() for name in (TOKEN_FILE, CONFIG_FILE))
    return files or any(environ.get(name) for name in ("PERRY_TOKEN", "PERRY_HOST", "PERRY_PORT"))


def named(host: str, where: Path) -> Target:
    """The control plane that a person names. Misused where that is no address."""
    return _parse(host, "HOST", where)


def own(environ: Mapping[str, str]) -> Target:
    """The control plane of this machine, at the address that its settings give it."""
    where = config_folder(environ)
    return _parse(_local_url(_read(where / CONFIG_FILE), environ), "default", where)


def token(of: Target, environ: Mapping[str, str] | None = None) -> str | None:
    """The bearer token for a control plane; None where there is none. NotAuthorised where its file cannot be read."""
    environ = os.environ if environ is None else environ
    if given := environ.get("PERRY_TOKEN"):
        return given.strip()
    return client_token(of) or (local_token(of.folder) if of.local else None)


def client_token(of: Target) -> str | None:
    """The token in ``client.json``, where it is this control plane's. NotAuthorised where others can read it."""
    client = client_settings(of.folder)
    if not isinstance(client.get("token"), str) or not client.get("worker"):
        return None
    if _parse(str(client["worker"]), CLIENT_FILE, of.folder).url != of.url:
        return None
    _private(of.folder / CLIENT_FILE)
    return str(client["token"]).strip()


def client_settings(where: Path) -> dict[str, Any]:
    """What ``client.json`` says; nothing where there is none. Misused where it cannot be read."""
    return _read(where / CLIENT_FILE)


def write_client(where: Path, *, worker: str | None, token: str | None) -> bool:
    """Set or remove the control plane in ``client.json``, which then only its owner reads; all else in it stays.

    Whether that changed anything. CliError where it cannot be written.
    """
    file = where / CLIENT_FILE
    before = client_settings(where)
    after = {key: value for key, value in before.items() if key not in ("worker", "token")}
    after |= {key: value for key, value in (("worker", worker), ("token", token)) if value is not None}
    if after == before:
        return False
    draft = where / f".{CLIENT_FILE}.{os.getpid()}"
    try:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w") as opened:
            json.dump(after, opened, indent=2)
            opened.write("\n")
            owner = where.stat()
            if os.geteuid() == 0 and owner.st_uid != 0:
                # Under sudo it is the person's, who reads it later.
                os.fchown(opened.fileno(), owner.st_uid, owner.st_gid)
        draft.replace(file)
    except OSError as exc:
        raise CliError(f"{file} cannot be written ({exc.strerror}); mend that folder's permissions.") from exc
    return True


def local_token(where: Path) -> str | None:
    """The token that the control plane of this machine made; None where it never ran."""
    try:
        return (where / TOKEN_FILE).read_text().strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise NotAuthorised(
            f"{where / TOKEN_FILE} cannot be read ({_reason(exc)}); run this as the person who runs the agent, "
            "or set PERRY_TOKEN."
        ) from exc


def listens_on(environ: Mapping[str, str]) -> str:
    """The address that this machine's control plane listens on, as its settings have it."""
    settings = _read(config_folder(environ) / CONFIG_FILE)
    return str(environ.get("PERRY_HOST") or settings.get("host") or "127.0.0.1")


def _local_url(settings: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    host = listens_on(environ)
    port = environ.get("PERRY_PORT") or settings.get("port") or DEFAULT_PORT
    if host in ("0.0.0.0", "::", "localhost"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _parse(text: str, source: str, where: Path) -> Target:
    text = text.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise Misused(
            f"{source} has {text!r}, which is no address ({exc}); write host:port or http://host:port."
        ) from exc
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.query or not _printable(text):
        raise Misused(f"{source} has {text!r}, which is no address; write host:port or http://host:port.")
    secure = parts.scheme == "https"
    if port is None:
        port = 443 if secure else DEFAULT_PORT if "://" not in text else 80
    path = parts.path.rstrip("/")
    bracketed = f"[{host}]" if ":" in host else host
    return Target(
        url=f"{parts.scheme}://{bracketed}:{port}{path}",
        host=host,
        port=port,
        secure=secure,
        path=path,
        local=source == "default" or _is_loopback(host),
        source=source,
        folder=where,
    )


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _printable(text: str) -> bool:
    return text.isprintable() and " " not in text


def _private(file: Path) -> None:
    """NotAuthorised where others can read a file with a token."""
    if file.stat().st_mode & 0o077:
        raise NotAuthorised(f"{file} holds a token and can be read by others; call `chmod 600 {file}`.")


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise Misused(f"{file} cannot be read ({_reason(exc)}); mend its permissions or content.") from exc
    except json.JSONDecodeError as exc:
        raise Misused(f"{file} is no JSON: {exc}; mend that line.") from exc
    if not isinstance(raw, dict):
        raise Misused(f"{file} must hold a JSON object; mend it.")
    return raw


def _reason(exc: Exception) -> str:
    return (exc.strerror or str(exc)) if isinstance(exc, OSError) else str(exc)
