"""What is brought into a home: whole, without following a link, and never over what the user has made."""

import io
import json
import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.credentials import receiver
from controlplane.credentials.plan import Merge
from controlplane.credentials.sources import Item


class Pipe:
    """Answers that the receiver writes, contents that it then reads."""

    def __init__(self, items: list[Item], spared: tuple[str, ...]) -> None:
        self.items = items
        listed = [
            {"path": i.path, "merge": i.merge, "mode": i.mode, "sha256": i.sha256, "size": len(i.content)}
            for i in items
        ]
        self.waiting = json.dumps({"complete": True, "spared": list(spared), "items": listed}).encode() + b"\n"
        self.answers: list[dict[str, Any]] = []

    def write(self, line: bytes) -> None:
        answer = json.loads(line)
        self.answers.append(answer)
        self.waiting = b"".join(self.items[index].content for index in answer.get("need", []))

    def flush(self) -> None:
        pass

    def readline(self) -> bytes:
        return self.waiting

    def read(self, size: int) -> bytes:
        given, self.waiting = self.waiting[:size], self.waiting[size:]
        return given


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / receiver.OWN_FOLDER).mkdir(parents=True)
    return tmp_path / "home"


def item(path: str, content: str | Mapping[str, Any], merge: Merge = Merge.FILE, mode: int = 0o600) -> Item:
    text = content if isinstance(content, str) else json.dumps(content)
    return Item(path=path, merge=merge, mode=mode, content=text.encode())


def bring(home: Path, *items: Item, spared: tuple[str, ...] = ()) -> dict[str, Any]:
    before = os.umask(0o022)
    pipe = Pipe(list(items), spared)
    try:
        receiver.run(pipe, pipe, str(home))  # type: ignore[arg-type]
    finally:
        os.umask(before)
    return pipe.answers[-1]


def test_a_file_is_brought_once_with_its_mode_and_private_parents(home: Path) -> None:
    wanted = item(".ssh/id", "key"), item("bin/run", "x", mode=0o700)
    assert bring(home, *wanted)["brought"] == [".ssh/id", "bin/run"]
    assert (home / ".ssh/id").read_text() == "key"
    assert stat.S_IMODE((home / ".ssh/id").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / ".ssh").stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "bin/run").stat().st_mode) == 0o700
    assert bring(home, *wanted)["brought"] == []


def test_what_changed_is_brought_what_the_user_changed_is_kept(home: Path) -> None:
    bring(home, item("a", "1"), item("b", "1"))
    (home / "b").write_text("mine")
    said = bring(home, item("a", "2"), item("b", "2"))
    assert (home / "a").read_text() == "2" and (home / "b").read_text() == "mine"
    assert said["brought"] == ["a"] and said["kept"][0][0] == "b"


def test_a_file_of_the_users_own_is_never_overwritten(home: Path) -> None:
    (home / ".gitconfig").write_text("mine")
    said = bring(home, item(".gitconfig", "theirs"))
    assert (home / ".gitconfig").read_text() == "mine" and said["kept"]


def test_what_is_not_brought_any_more_goes_unless_it_was_changed_or_is_spared(home: Path) -> None:
    bring(home, item("a", "1"), item("b", "1"), item("c/d", "1"))
    (home / "b").write_text("mine")
    said = bring(home, spared=("c",))
    assert said["removed"] == ["a"] and said["kept"][0][0] == "b"
    assert not (home / "a").exists() and (home / "b").exists() and (home / "c/d").exists()


@pytest.mark.parametrize("merge", list(Merge))
def test_nothing_is_written_through_a_link_that_the_user_made(home: Path, tmp_path: Path, merge: Merge) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    (home / "folder").symlink_to(outside)
    (home / "file.json").symlink_to(outside / "config.json")
    content = "" if merge is Merge.TOML else '{"a": 1}'
    said = bring(home, item("folder/config.json", content, merge), item("folder/sub/x", content, merge),
                 item("file.json", content, merge))  # fmt: skip
    assert (outside / "config.json").read_text() == "{}" and not (outside / "sub").exists()
    assert {path for path, _ in said["kept"]} == {"folder/config.json", "folder/sub/x", "file.json"}


def test_a_folder_a_fifo_and_a_file_in_the_way_are_kept(home: Path) -> None:
    (home / "folder").mkdir()
    os.mkfifo(home / "fifo")
    (home / "plain").write_text("mine")
    said = bring(home, item("folder", "x"), item("fifo", "x"), item("plain/below", "x"), item("fine", "x"))
    assert {path for path, _ in said["kept"]} == {"folder", "fifo", "plain/below"}
    assert said["brought"] == ["fine"]


def test_a_home_without_the_place_is_said(tmp_path: Path) -> None:
    assert bring(tmp_path, item("a", "1"))["missing"] is True


def test_json_gets_what_is_new_and_keeps_what_is_theirs(home: Path) -> None:
    file = home / "settings.json"
    file.write_text('{"mine": 1, "shared": {"mine": 2}}')
    bring(home, item("settings.json", {"new": 1, "shared": {"new": 2}, "mine": 9}, Merge.JSON))
    assert json.loads(file.read_text()) == {"mine": 1, "new": 1, "shared": {"mine": 2, "new": 2}}
    bring(home, item("settings.json", {"new": 3, "mine": 9}, Merge.JSON))
    assert json.loads(file.read_text()) == {"mine": 1, "new": 3, "shared": {"mine": 2}}
    bring(home)
    assert json.loads(file.read_text()) == {"mine": 1, "shared": {"mine": 2}}


def test_json_that_was_ours_alone_goes_when_it_is_not_brought_any_more(home: Path) -> None:
    bring(home, item("a.json", {"x": 1}, Merge.JSON))
    bring(home)
    assert not (home / "a.json").exists()


def test_json_of_theirs_that_is_none_is_kept(home: Path) -> None:
    (home / "a.json").write_text("// mine")
    assert bring(home, item("a.json", {"x": 1}, Merge.JSON))["kept"]
    assert (home / "a.json").read_text() == "// mine"


def test_toml_gets_keys_and_tables_that_it_lacks(home: Path) -> None:
    file = home / "config.toml"
    file.write_text('# mine\nmodel = "mine"\n\n[projects."/x"]\ntrust_level = "trusted"\n')
    new = 'model = "new"\nnotify = [\n  "a",\n]\n\n[mcp_servers.m]\ncommand = "m"\n'
    said = bring(home, item("config.toml", new, Merge.TOML))
    assert said["brought"] == ["config.toml"] and "# mine" in file.read_text()
    assert tomllib.loads(file.read_text()) == {
        "model": "mine",
        "notify": ["a"],
        "projects": {"/x": {"trust_level": "trusted"}},
        "mcp_servers": {"m": {"command": "m"}},
    }


def test_toml_that_would_have_to_change_inside_is_kept(home: Path) -> None:
    (home / "config.toml").write_text("[a]\nx = 1\n")
    assert bring(home, item("config.toml", "[a]\ny = 2\n", Merge.TOML))["kept"]
    assert (home / "config.toml").read_text() == "[a]\nx = 1\n"


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "x", "y"]),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), DOCUMENTS, max_size=3)


@given(OBJECTS, OBJECTS)
def test_what_the_user_did_not_touch_follows_and_what_is_brought_again_changes_nothing(base: Any, new: Any) -> None:
    assert receiver.same(receiver.merged(base, new, base), new)
    assert receiver.same(receiver.merged(new, new, base), base)


@given(OBJECTS, OBJECTS)
def test_what_was_never_brought_is_never_lost(new: Any, theirs: Any) -> None:
    result = receiver.merged(receiver.MISSING, new, theirs)
    for key, value in theirs.items():
        assert key in result
        if not isinstance(value, dict):
            assert receiver.same(result[key], value)


def test_contents_that_end_too_early_leave_nothing_half_written(home: Path) -> None:
    request = {"complete": True, "spared": [], "items": [
        {"path": "a", "merge": "file", "mode": 0o600, "sha256": "0" * 64, "size": 100}]}  # fmt: skip
    out = io.BytesIO()
    receiver.run(io.BytesIO(json.dumps(request).encode() + b"\nshort"), out, str(home))
    assert not (home / "a").exists()
