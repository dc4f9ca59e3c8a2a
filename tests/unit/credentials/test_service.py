"""Bringing, watching and scripts, with the real receiver and real scripts, in a home of this machine."""

import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from controlplane.credentials.service import Credentials
from controlplane.credentials.store import Secrets
from controlplane.credentials.watcher import watch_for_ever
from controlplane.errors import NotReady, StepFailed
from controlplane.events.bus import Bus
from controlplane.ports import ContainerSpec
from controlplane.settings import load
from tests.fakes.engine import FakeEngine
from tests.fakes.processes import FakeProcesses
from tests.fakes.worker_keeper import FakeWorkerKeeper
from tests.fakes.workspaces import FakeWorkspaces, workspace


class Person:
    """A machine with one workspace; ``there`` is its home."""

    def __init__(self, folder: Path) -> None:
        self.home, self.there, self.config = folder / "home", folder / "there", folder / "config"
        for each in (self.home, self.there / ".perry/credentials", self.config):
            each.mkdir(parents=True)
        self.engine = FakeEngine(["i"])
        self.engine.processes = FakeProcesses(self.there)
        self.workspaces = FakeWorkspaces(Bus())
        self.workers = FakeWorkerKeeper()
        self.credentials = Credentials(
            self.engine,
            secrets=Secrets(self.config / "secrets"),
            home=self.home,
            settings=lambda: load(self.config, {}).settings,
            workspaces=lambda: self.workspaces,
            workers=self.workers,
        )

    def settings(self, text: str) -> None:
        (self.config / "config.json").write_text(text)


@pytest.fixture
async def person(tmp_path: Path) -> AsyncIterator[Person]:
    it = Person(tmp_path)
    it.workspaces.put(workspace("alpha"))
    await it.engine.ensure_container(ContainerSpec(name="alpha", image="i", labels={}))
    await it.engine.start("alpha")
    yield it


async def test_what_is_brought_is_there_and_asked_again_nothing_changes(person: Person) -> None:
    person.settings('{"credentials": {"files": {"~/x": "~/x"}, "env": {"A": "1"}}}')
    (person.home / "x").write_text("one")
    first = await person.credentials.sync("alpha")
    assert "~/x" in first.brought and (person.there / "x").read_text() == "one"
    assert (person.there / ".perry/credentials/environment").read_text() == "A=1\n"
    second = await person.credentials.sync("alpha")
    assert (second.brought, second.removed, second.kept, second.problems) == ([], [], [], [])
    person.settings("{}")
    assert set((await person.credentials.sync("alpha")).removed) == {"~/x", "~/.perry/credentials/environment"}


async def test_keys_that_may_log_in_come_and_go_with_a_sync(person: Person) -> None:
    key, there = "ssh-ed25519 AAAA me", person.there / ".perry/credentials/authorized_keys"
    (person.home / "me.pub").write_text(f"{key}\n")
    person.settings('{"ssh": {"authorizedKeys": ["~/me.pub"], "global": {"authorize": ["ssh-ed25519 BBBB you"]}}}')
    assert person.home / "me.pub" in person.credentials.watched()
    await person.credentials.sync("alpha")
    assert there.read_text() == f"{key}\nssh-ed25519 BBBB you\n"
    person.settings('{"ssh": {"authorizedKeys": ["~/gone.pub"]}}')
    synced = await person.credentials.sync("alpha")
    assert "gone.pub" in synced.problems[0] and "does not exist" in synced.problems[0]
    assert not there.exists() or not there.read_text()


@pytest.mark.parametrize(
    ("settings", "whence"),
    [("{}", "~/.gitconfig"), ('{"git": {"name": "A", "email": "a@example.com"}}', "config.json")],
)
async def test_it_says_whose_name_commits_have(person: Person, settings: str, whence: str) -> None:
    (person.home / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.com\n")
    person.settings(settings)
    assert [item.source for item in (await person.credentials.brought()).items if item.setting == "git"] == [whence]


async def test_a_start_fails_its_step_with_a_sentence_and_brings_the_rest(person: Person) -> None:
    person.settings('{"credentials": {"files": {"~/x": "~/x", "~/y": "~/y"}}}')
    (person.home / "y").write_text("y")
    with pytest.raises(StepFailed, match="does not exist"):
        await person.credentials.bring("alpha", "alpha")
    assert (person.there / "y").exists()


async def test_a_workspace_that_stops_meanwhile_is_said(person: Person) -> None:
    person.settings('{"credentials": {"files": {"~/x": "~/x"}}}')
    (person.home / "x").write_bytes(b"x" * (8 << 20))
    hung = person.there / ".perry/credentials/lock"
    with hung.open("w") as lock, pytest.raises(NotReady, match="stopped while"):
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                await anyio.sleep(0.3)
                await person.engine.stop("alpha")

            tasks.start_soon(stop)
            try:
                await person.credentials.bring("alpha", "alpha")
            except NotReady as exc:
                caught = exc
        raise caught
    assert not (person.there / "x").exists()


async def test_what_is_watched_is_what_is_named_and_not_all_of_home(person: Person) -> None:
    assert person.home not in person.credentials.watched()
    person.settings('{"git": {"signingKey": "~/.ssh/id_ed25519.pub"}}')
    watched = person.credentials.watched()
    assert person.home / ".ssh/id_ed25519.pub" in watched and person.home not in watched


async def test_a_change_is_brought_by_itself_also_where_the_file_is_replaced(person: Person) -> None:
    person.settings('{"credentials": {"files": {"~/x": "~/x"}}}')
    (person.home / "x").write_text("one")
    await person.credentials.sync("alpha")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch_for_ever, person.credentials)
        await anyio.sleep(0.5)
        for text in ("two", "three"):
            (person.home / ".new").write_text(text)
            os.replace(person.home / ".new", person.home / "x")
            with anyio.fail_after(9):
                while (person.there / "x").read_text() != text:  # noqa: ASYNC110
                    await anyio.sleep(0.02)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no such host $SECRET >&2; exit 7", "exit code 7: no such host"),
        ("sleep 60", "did not end within 1 s"),
        ("sleep 60 & exit 4", "exit code 4"),
    ],
)
async def test_a_script_that_fails_or_hangs_is_said(person: Person, script: str, words: str) -> None:
    (person.home / "s.sh").write_text(f"#!/bin/sh\n{script}\n")
    person.settings('{"scripts": {"post_start": "~/s.sh", "timeout": 1}}')
    with pytest.raises(StepFailed, match=words):
        await person.credentials.prepare("alpha", "alpha", lambda _: None)


async def test_scripts_of_a_folder_run_in_order_and_failures_can_be_let_go(person: Person) -> None:
    (person.home / "d").mkdir()
    for name, code in (("1.sh", 1), ("2.sh", 0)):
        (person.home / f"d/{name}").write_text(f"#!/bin/sh\necho {name} >>~/ran; exit {code}\n")
    person.settings('{"scripts": {"post_start": ["~/d"], "fail_on_error": false}}')
    assert await person.credentials.prepare("alpha", "alpha", lambda _: None)
    assert (person.there / "ran").read_text() == "1.sh\n2.sh\n"
    person.settings("{}")
    assert not await person.credentials.prepare("alpha", "alpha", lambda _: None)


async def test_asked_for_the_worker_comes_too_and_by_itself_it_stays(person: Person) -> None:
    person.workers.renewed = "2"
    assert (await person.credentials.sync("alpha")).worker == "2"
    await person.credentials.sync_running()
    assert person.workers.asked_to_renew == ["alpha"]
    person.workers.failing = StepFailed("The worker could not be put in place.")
    synced = await person.credentials.sync("alpha")
    assert (synced.worker, synced.problems) == (None, ["The worker could not be put in place."])
