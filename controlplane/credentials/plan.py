"""What is to be in a workspace: where it goes, what it comes from, and how it meets what stands there. Pure."""

import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from controlplane.credentials import coding_agents, signing
from controlplane.credentials.signing import Signer
from controlplane.errors import InvalidInput, PerryError
from controlplane.settings import Settings
from controlplane.settings.personal import GithubSettings, Reference, Value
from controlplane.workspaces.spec import HOME

OWN: Final = ".perry/credentials"
"""Perry's own folder in a workspace's home. What stands there is Perry's, and is replaced."""

VALUE_LIMIT: Final = 64 << 10
DEFAULT_KEYS: Final = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")
"""What ssh tries by itself, as long as no configuration names a key."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STRUCTURED = {".json": "json", ".toml": "toml"}


class Merge(StrEnum):
    """How an item meets what stands in its place; see ``receiver``."""

    OWN = "own"
    FILE = "file"
    JSON = "json"
    TOML = "toml"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """Something to bring. ``path`` is below home.

    ``source`` is a path of the machine, a file or a folder, or the content itself. Of a JSON object only ``keys`` are
    brought, where there are any. What is not ``required`` may be missing. ``setting`` is what asks for it;
    ``whence`` is where content comes from. Content may be a program (``executable``); files are that where they were.
    """

    path: str
    source: str | bytes
    setting: str
    merge: Merge = Merge.FILE
    required: bool = True
    keys: tuple[str, ...] = ()
    executable: bool = False
    whence: str = "config.json"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that is wished for, what cannot be, in sentences, and the values that must never be shown."""

    wishes: tuple[Wish, ...]
    problems: tuple[str, ...]
    secrets: tuple[str, ...] = ()

    def with_more(self, wishes: Sequence[Wish], problems: Sequence[str]) -> "Plan":
        return msgspec.structs.replace(self, wishes=(*self.wishes, *wishes), problems=(*self.problems, *problems))


class Person(msgspec.Struct, frozen=True):
    """Who commits, where the settings do not say."""

    name: str = ""
    email: str = ""


Lookup = Callable[[Reference], str]
"""What a reference stands for; PerryError says why there is nothing."""


def plan(settings: Settings, workspace: str, person: Person, lookup: Lookup) -> Plan:
    """What the workspace of that name is to have."""
    problems: list[str] = []

    def value(setting: str, given: Value) -> str:
        try:
            return given if isinstance(given, str) else lookup(_one(given))
        except PerryError as exc:
            problems.append(f"{setting}: {exc.message}")
            return ""

    env = {name: value(f"credentials.env.{name}", given) for name, given in settings.credentials.env.items()}
    original = settings.agents.claude_code
    if token := value("agents.claude_code.oauth_token", original.oauth_token):
        env.setdefault("CLAUDE_CODE_OAUTH_TOKEN", token)
    if original.model:
        env.setdefault("ANTHROPIC_MODEL", original.model)
    github = GithubSettings(
        token=value("github.token", settings.github.token)
        or value("agents.github.token", settings.agents.github.token),
        host=settings.github.host,
    )
    servers = [
        msgspec.structs.replace(
            server,
            env={name: value(f"mcpServers.{server.name}.env.{name}", v) for name, v in server.env.items()},
            headers={name: value(f"mcpServers.{server.name}.headers.{name}", v) for name, v in server.headers.items()},
        )
        for server in settings.mcp_servers
        if server.enabled
    ]
    zen = value("agents.opencode.zen_token", settings.agents.opencode.zen_token)
    signer = _signer(settings, person, lookup, problems)
    wishes = [
        Wish(path=f"{OWN}/environment", source=environment(env, problems), setting="credentials.env", merge=Merge.OWN),
        *_git(settings, person, github, signer),
        *_ssh(settings, workspace, signer),
        *_files(settings.credentials.files, problems),
        *(
            Wish(
                path=each.path,
                source=each.source,
                setting=each.setting,
                merge=Merge(each.merge),
                required=each.required,
                keys=each.keys,
            )
            for each in coding_agents.wanted(settings, servers, zen)
        ),
    ]
    hidden = [*env.values(), str(github.token), zen]
    hidden += [str(v) for server in servers for v in (*server.env.values(), *server.headers.values())]
    wished = tuple(wish for wish in wishes if wish.source)
    return Plan(wishes=wished, problems=tuple(problems), secrets=tuple(each for each in hidden if len(each) > 3))


def _one(reference: Reference) -> Reference:
    if bool(reference.file) == bool(reference.secret):
        raise InvalidInput('give either {"secret": name} or {"file": path}.')
    return reference


# --- variables


def environment(values: Mapping[str, str], problems: list[str]) -> bytes:
    """The file of variables: ``NAME=value`` lines, a value as it is. What cannot stand so becomes a problem."""
    lines: list[str] = []
    for name, value in values.items():
        if problem := _unfit(name, value):
            problems.append(f"credentials.env: {problem}")
        elif value:
            lines.append(f"{name}={value}\n")
    return "".join(lines).encode()


def _unfit(name: str, value: str) -> str | None:
    if not _VARIABLE.fullmatch(name):
        return f"{name!r} is no name that a variable can have; use letters, digits and underscores."
    if "\n" in value or "\r" in value:
        return f"the value of {name} has a line break, which not every session could take; bring it as a file."
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        return f"the value of {name} is no text; bring it as a file."
    if len(value.encode()) > VALUE_LIMIT:
        return f"the value of {name} is longer than {VALUE_LIMIT >> 10} KB; bring it as a file."
    return None


# --- git, GitHub, ssh


def _signer(settings: Settings, person: Person, lookup: Lookup, problems: list[str]) -> Signer | None:
    given = settings.git.signing_key
    if not given:
        return None
    try:
        reference = given if isinstance(given, str) else _one(given)
        return signing.signer(reference, settings.git.email or person.email, lookup, HOME, f"{HOME}/{OWN}")
    except PerryError as exc:
        problems.append(f"git.signingKey: {exc.message}")
        return None


def _git(settings: Settings, person: Person, github: GithubSettings, signer: Signer | None) -> Iterator[Wish]:
    user = {"name": settings.git.name or person.name, "email": settings.git.email or person.email}
    sections: list[str] = []
    if signer:
        user["signingkey"] = signer.key
        sections += [signer.config, "[commit]\n\tgpgsign = true\n", "[tag]\n\tgpgsign = true\n"]
        for name, content in signer.files.items():
            own = Wish(path=f"{OWN}/{name}", source=content, setting="git.signingKey", merge=Merge.OWN)
            yield msgspec.structs.replace(own, executable=name == signing.PROGRAM)
    lines = "".join(f"\t{name} = {_quoted(value)}\n" for name, value in user.items() if value)
    if lines:
        sections.insert(0, f"[user]\n{lines}")
    if github.token:
        helper = "\thelper = /usr/lib/perry/github-credential\n"
        sections.append(f'[credential "https://{github.host}"]\n{helper}')
        token = f"{github.host}\n{github.token}\n".encode()
        yield Wish(path=f"{OWN}/github", source=token, setting="github.token", merge=Merge.OWN)
    whence = "~/.gitconfig" if user["name"] or user["email"] else "config.json"
    if settings.git.name or settings.git.email:
        whence = "config.json"
    text = "".join(sections).encode()
    yield Wish(path=f"{OWN}/gitconfig", source=text, setting="git", merge=Merge.OWN, whence=whence)


def _quoted(value: str) -> str:
    """A value of git's configuration."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\0", "")
    return f'"{escaped}"'


def _ssh(settings: Settings, workspace: str, signer: Signer | None) -> Iterator[Wish]:
    everywhere = settings.ssh.all
    here = settings.ssh.workspaces.get(workspace)
    keys = [*everywhere.copy, *(here.copy if here else ())]
    for key in keys:
        yield from _key(key, "ssh.global.copy" if key in everywhere.copy else f"ssh.workspaces.{workspace}.copy")
    if signer and signer.copied and signer.copied not in keys:
        yield from _key(signer.copied, "git.signingKey")
    named = [name for name in map(posixpath.basename, keys) if name not in DEFAULT_KEYS]
    lines = [f'    IdentityFile "~/.ssh/{name}"\n' for name in (*named, *DEFAULT_KEYS)] if named else []
    if settings.ssh.known_hosts:
        hosts = "".join(f"{line}\n" for line in settings.ssh.known_hosts)
        yield Wish(path=f"{OWN}/known_hosts", source=hosts.encode(), setting="ssh.knownHosts", merge=Merge.OWN)
        own = f"~/{OWN}/known_hosts"
        lines.append(f"    UserKnownHostsFile ~/.ssh/known_hosts ~/.ssh/known_hosts2 {own}\n")
    if lines:
        text = "Host *\n" + "".join(lines)
        yield Wish(path=f"{OWN}/ssh_config", source=text.encode(), setting="ssh", merge=Merge.OWN)


def _key(source: str, setting: str) -> Iterator[Wish]:
    path = f".ssh/{posixpath.basename(source)}"
    yield Wish(path=path, source=source, setting=setting)
    yield Wish(path=f"{path}.pub", source=f"{source}.pub", setting=setting, required=False)


def authorized(settings: Settings, workspace: str) -> list[str]:
    """Keys, and names of files with keys, that may log in, besides the control plane's own."""
    here = settings.ssh.workspaces.get(workspace)
    found = [*settings.ssh.authorized_keys, *settings.ssh.all.authorize, *(here.authorize if here else ())]
    return [*found, *(["~/.ssh/*.pub"] if settings.ssh.auto_authorize_host_keys else [])]


# --- files


def _files(files: Mapping[str, str], problems: list[str]) -> Iterator[Wish]:
    for given, source in files.items():
        try:
            path = destination(given)
        except InvalidInput as exc:
            problems.append(exc.message)
            continue
        merge = Merge(_STRUCTURED.get(posixpath.splitext(path)[1], "file"))
        yield Wish(path=path, source=source or "", setting=f"credentials.files.{given}", merge=merge)


def destination(given: str) -> str:
    """A path below home, from how people write it: ``~/x``, ``x`` or ``/home/workspace/x``."""
    said = f"credentials.files: {given!r}"
    path = given.removeprefix("~/")
    if given.startswith("/"):
        if not given.startswith(f"{HOME}/"):
            raise InvalidInput(f"{said} is not in the workspace's home; only there things are put: write ~/….")
        path = given.removeprefix(f"{HOME}/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or parts[0] in ("~", "..") or not path.isprintable():
        raise InvalidInput(f"{said} is no place in the workspace's home; write ~/ and the path, without `..`.")
    if parts[0] == ".perry":
        raise InvalidInput(f"{said} is in ~/.perry, which is Perry's own; choose another place.")
    return "/".join(parts)


# --- JSON and TOML from several sources


def combined(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Objects put together; where they differ, the later wins."""
    result: dict[str, Any] = {}
    for document in documents:
        for key, value in document.items():
            present = result.get(key)
            both = isinstance(present, dict) and isinstance(value, Mapping)
            result[key] = combined([present, value]) if both and present is not None else value
    return result


def as_json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
