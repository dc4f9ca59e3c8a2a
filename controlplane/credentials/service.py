"""Brings what the settings name into workspaces: at their start, when a source changes, and when somebody asks."""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import anyio
import msgspec

from controlplane.credentials import sources
from controlplane.credentials.delivery import Outcome, deliver
from controlplane.credentials.plan import OWN, Merge, Plan, Wish, authorized, plan
from controlplane.credentials.scripts import Runner, scripts_of
from controlplane.credentials.sources import Gathered
from controlplane.credentials.store import Secrets
from controlplane.errors import PerryError, StepFailed
from controlplane.ports import Engine
from controlplane.settings import Settings
from controlplane.settings.personal import Reference
from protocol.credentials import Brought, BroughtItem, Synced
from protocol.workspaces import Workspace, WorkspaceStatus

log = logging.getLogger(__name__)


class Located(Protocol):
    """Knows the workspaces."""

    async def container(self, name: str) -> str:
        """The container of a workspace that runs. NotFound; NotReady where it does not run."""

    def last_seen(self) -> Sequence[Workspace]: ...


class Renewing(Protocol):
    """Knows the worker that a workspace should have."""

    async def renew(self, workspace: str, container: str) -> str | None:
        """The version that was brought; None where it ran already. PerryError where it could not be."""


class Credentials:
    """``settings`` reads them anew each time; ``home`` is the folder of the person whose control plane this is."""

    def __init__(
        self,
        engine: Engine,
        *,
        secrets: Secrets,
        home: Path,
        settings: Callable[[], Settings],
        workspaces: Callable[[], Located],
        workers: Renewing,
    ) -> None:
        self._engine = engine
        self._secrets = secrets
        self._home = home
        self._settings = settings
        self._workspaces = workspaces
        self._workers = workers
        self._locks: dict[str, anyio.Lock] = {}

    # --- at a start (controlplane.ports.Provisions)

    async def bring(self, container: str, name: str) -> str | None:
        """Before the clone. What is worth saying of it; StepFailed where something could not be brought."""
        gathered, outcome = await self._bring(container, name)
        problems = _problems(gathered, outcome)
        if problems:
            raise StepFailed(" ".join(problems))
        return " ".join(_kept(outcome)) or None

    async def prepare(self, container: str, name: str, progress: Callable[[str], None]) -> bool:
        """After the clone: dotfiles and scripts. False where there are none; StepFailed where one failed."""
        settings = self._settings()
        scripts = scripts_of(settings.scripts, self._home)
        if not scripts and not settings.dotfiles.repository:
            return False
        runner = Runner(self._engine, container, name, self._plan(settings, name).secrets)
        if settings.dotfiles.repository:
            progress("dotfiles")
            await runner.dotfiles(settings.dotfiles.repository, settings.dotfiles.install)
        failures: list[str] = []
        for script in scripts:
            progress(script.name)
            try:
                await runner.script(script, settings.scripts.timeout)
            except StepFailed as exc:
                if settings.scripts.fail_on_error:
                    raise
                failures.append(exc.message)
        for failure in failures:
            log.warning("%s: %s", name, failure)
        return True

    # --- when somebody asks

    async def sync(self, name: str) -> Synced:
        """Bring what has changed into a workspace that runs, and the worker where it has another."""
        synced = await self._sync(name)
        try:
            worker = await self._workers.renew(name, await self._workspaces().container(name))
        except PerryError as exc:
            return msgspec.structs.replace(synced, problems=[*synced.problems, exc.message])
        return msgspec.structs.replace(synced, worker=worker)

    async def _sync(self, name: str) -> Synced:
        began = time.monotonic()
        container = await self._workspaces().container(name)
        gathered, outcome = await self._bring(container, name)
        return Synced(
            name=name,
            brought=[f"~/{path}" for path in outcome.brought],
            removed=[f"~/{path}" for path in outcome.removed],
            kept=_kept(outcome),
            problems=_problems(gathered, outcome),
            seconds=round(time.monotonic() - began, 3),
        )

    async def brought(self) -> Brought:
        """What workspaces are given, and from where; never its content."""
        settings = self._settings()
        planned = self._plan(settings, "")
        gathered = await anyio.to_thread.run_sync(sources.gather, planned, self._home)
        present = {item.path for item in gathered.items}
        items = [
            BroughtItem(
                path=f"~/{wish.path}",
                setting=wish.setting,
                source=wish.source if isinstance(wish.source, str) else wish.whence,
                present=wish.path in present or any(path.startswith(f"{wish.path}/") for path in present),
            )
            for wish in planned.wishes
        ]
        return Brought(
            items=[item for item in items if item.present or item.setting.partition(".")[0] != "agents"],
            problems=list(gathered.problems),
        )

    # --- when a source changes

    def watched(self) -> list[Path]:
        """Files and folders of this machine whose change may mean something for a workspace."""
        settings = self._settings()
        references = [
            v
            for v in (*settings.credentials.env.values(), settings.github.token, settings.git.signing_key)
            if isinstance(v, Reference)
        ]
        found = [each.file for each in references if each.file]
        if isinstance(settings.git.signing_key, str) and settings.git.signing_key:
            found.append(settings.git.signing_key)
        for name in ("", *settings.ssh.workspaces):
            found += [wish.source for wish in self._plan(settings, name).wishes if isinstance(wish.source, str)]
            found += [entry for entry in authorized(settings, name) if " " not in entry.strip() and "*" not in entry]
        paths = [sources.expanded(each, self._home) for each in dict.fromkeys(found)]
        return [*paths, self._home / ".gitconfig", self._secrets.folder, self._secrets.folder.parent / "config.json"]

    async def fingerprint(self) -> str:
        """Changes when what would be brought changes."""
        digest = hashlib.sha256()
        settings = self._settings()
        for name in ("", *settings.ssh.workspaces):
            for item in (await self._gathered(settings, name)).items:
                digest.update(f"{name} {item.path} {item.merge} {item.mode} {item.sha256}\n".encode())
        return digest.hexdigest()

    async def sync_running(self) -> None:
        """Bring what has changed into every workspace that runs."""
        for workspace in self._workspaces().last_seen():
            if workspace.status is not WorkspaceStatus.RUNNING:
                continue
            try:
                synced = await self._sync(workspace.name)
            except PerryError as exc:
                log.warning("credentials were not brought into %s: %s", workspace.name, exc.message)
                continue
            log.info("brought %s changed files into %s in %s s", len(synced.brought), synced.name, synced.seconds)

    def secret_values(self) -> tuple[str, ...]:
        """What workspaces are given and nobody else may see; reads files. PerryError where the settings are wrong."""
        return self._plan(self._settings(), "").secrets

    # --- inside

    def _plan(self, settings: Settings, name: str) -> Plan:
        person = sources.git_person(self._home) if not (settings.git.name and settings.git.email) else sources.NOBODY
        planned = plan(settings, name, person, self._lookup)
        problems: list[str] = []
        keys = sources.authorized_keys(authorized(settings, name), self._home, problems)
        path = f"{OWN}/authorized_keys"
        wish = Wish(path=path, source=keys, setting="ssh.authorizedKeys", merge=Merge.OWN)
        return planned.with_more([wish] if keys else [], problems)

    def _lookup(self, reference: Reference) -> str:
        if reference.secret:
            return self._secrets.get(reference.secret)
        return sources.read_text(reference.file, self._home)

    async def _gathered(self, settings: Settings, name: str) -> Gathered:
        return await anyio.to_thread.run_sync(lambda: sources.gather(self._plan(settings, name), self._home))

    async def _bring(self, container: str, name: str) -> tuple[Gathered, Outcome]:
        async with self._locks.setdefault(name, anyio.Lock()):
            gathered = await self._gathered(self._settings(), name)
            return gathered, await deliver(self._engine, container, name, gathered)


def _kept(outcome: Outcome) -> list[str]:
    return [f"~/{path} {why}." for path, why in outcome.kept]


def _problems(gathered: Gathered, outcome: Outcome) -> list[str]:
    return [*gathered.problems, *(f"~/{path} could not be written: {why}." for path, why in outcome.failed)]
