"""What items leave: kept before their workspaces go, and what keeps these where it could not be."""

import pytest

from controlplane.errors import NotFound
from controlplane.ports import ExecOutput
from protocol.batches import (
    ReadBatchItem,
)
from protocol.tasks import Commit, RemoveWhen, Task, TaskState
from tests.unit.batches.conftest import COMMIT, Plane, Scene, wanted


async def test_what_cannot_be_read_keeps_its_workspace(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.batches.driver.RETRY_SECONDS", 0.01)
    plane.world.unreadable.add("pr-one")
    async with plane.at_work():
        done = await plane.settled(await plane.service.start(wanted("one", remove_when=RemoveWhen.DONE)))
    assert done.items[0].removal == "kept: what it left could not all be read: “The worker of 'pr-one' is not there.”"


async def test_a_workspace_that_stopped_stays(plane: Plane) -> None:
    async with plane.at_work():
        started = await plane.service.start(wanted("sleep", remove_when=RemoveWhen.DONE))
        await plane.eventually(lambda: plane.world.begun == ["sleep"])
        plane.world.stops("pr-sleep")
        plane.world.ends("pr-sleep", TaskState.FAILED)
        done = await plane.settled(started)
    assert done.items[0].note == "The workspace 'pr-sleep' is stopped."
    assert list(plane.world.there) == ["pr-sleep"]


async def test_what_an_item_left_is_kept_when_its_workspace_is_gone(plane: Plane) -> None:
    plane.world.commits = (Commit(id=COMMIT, subject="Two"), Commit(id="f" * 40, subject="One"))
    async with plane.at_work():
        done = await plane.settled(await plane.service.start(wanted("one", remove_when=RemoveWhen.DONE)))
    found = await plane.service.result(ReadBatchItem(id=done.summary.id, number=1))
    assert (found.log, found.patch) == (b"log of it", b"From 0123\n\xff")
    assert found.result is not None and found.result.last_message == "Done with one.\nReally."
    assert found.entry.commits == 2
    with pytest.raises(NotFound, match="no item 2"):
        await plane.service.result(ReadBatchItem(id=done.summary.id, number=2))


async def test_one_items_result_asks_about_no_other(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    async with plane.at_work():
        done = await plane.settled(await plane.service.start(wanted("one", "two", "three")))
        get, asked = plane.tasks.get, []

        async def notes(id_: str) -> Task:
            asked.append(id_)
            return await get(id_)

        monkeypatch.setattr(plane.tasks, "get", notes)
        found = await plane.service.result(ReadBatchItem(id=done.summary.id, number=2))
    assert found.entry == done.items[1] and asked == [found.entry.task]


@pytest.mark.parametrize(
    ("ids", "arguments"), [([COMMIT], ["-1", COMMIT]), ([COMMIT, "f" * 40], ["--no-walk=unsorted", COMMIT, "f" * 40])]
)
async def test_the_patch_has_exactly_its_commits(plane: Plane, ids: list[str], arguments: list[str]) -> None:
    plane.world.commits = tuple(Commit(id=id_, subject="x") for id_ in ids)
    async with plane.at_work():
        await plane.settled(await plane.service.start(wanted("one")))
    (command,) = plane.world.ran
    assert command[command.index("format-patch") :] == ["format-patch", "--stdout", "--always", *arguments]


async def test_commits_are_handed_to_git_only_where_they_are_some(plane: Plane) -> None:
    plane.world.commits = (Commit(id="--output=/etc/passwd", subject="x"),)
    async with plane.at_work():
        await plane.settled(await plane.service.start(wanted("one")))
    assert plane.world.ran == []


async def test_what_git_cannot_say_keeps_the_workspace(plane: Plane) -> None:
    plane.world.unknown = "git could not say what was left: it is no repository"
    async with plane.at_work():
        done = await plane.settled(await plane.service.start(wanted("one", remove_when=RemoveWhen.DONE)))
        found = await plane.service.result(ReadBatchItem(id=done.summary.id, number=1))
    assert done.items[0].removal == f"kept: what it left could not all be read: “{plane.world.unknown}”"
    assert (found.log, found.entry.said) == (b"log of it", "Done with one. Really.")


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (ExecOutput(exit_code=128, stdout=b"", stderr=b"fatal: bad object"), "git made no patch of its commits"),
        (ExecOutput(exit_code=0, stdout=b"From", stderr=b"", truncated=True), "more than 4 MiB as a patch"),
    ],
)
async def test_commits_without_a_patch_keep_the_workspace(plane: Plane, made: ExecOutput, why: str) -> None:
    plane.world.commits = (Commit(id=COMMIT, subject="x"),)
    plane.world.patch = made
    async with plane.at_work():
        done = await plane.settled(await plane.service.start(wanted("one", remove_when=RemoveWhen.DONE)))
        found = await plane.service.result(ReadBatchItem(id=done.summary.id, number=1))
    assert why in (done.items[0].removal or "") and why in (done.items[0].note or "")
    assert (found.log, found.patch) == (b"log of it", None) and list(plane.world.there) == ["pr-one"]


async def test_a_full_disk_keeps_the_workspace(plane: Plane, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.batches.driver.RETRY_SECONDS", 0.01)
    scene.folder.write_text("no folder")
    async with plane.at_work():
        done = await plane.settled(await plane.service.start(wanted("one", remove_when=RemoveWhen.DONE)))
    assert (done.items[0].removal or "").startswith("kept: what it left could not all be read")
    assert list(plane.world.there) == ["pr-one"]


async def test_files_of_old_batches_go(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.batches.service.KEPT", 1)
    plane = scene.plane()
    async with plane.at_work():
        ids = [(await plane.settled(await plane.service.start(wanted(item)))).summary.id for item in ("a", "b", "c")]
    assert sorted(each.name for each in scene.folder.iterdir()) == sorted(ids[1:])
    assert (scene.folder / ids[2]).stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in (scene.folder / ids[2]).iterdir())
