"""The scripts behind make: what they conclude, and what they must never touch."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bootstrap import clean, device, engine, ensure, notes, packages, perry, quickstart, running, tools
from bootstrap.running import Trouble
from protocol.folders import config_folder

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Notes of a checkout that nothing was installed for."""
    folder = tmp_path / ".build"
    monkeypatch.setattr(notes, "BUILD", folder)
    monkeypatch.setattr(notes, "FILE", folder / "installed.json")
    yield folder


def test_notes_add_up_and_are_said_once() -> None:
    assert notes.noted(notes.PACKAGES) == []
    notes.note(notes.PACKAGES, "docker.io", "iptables")
    notes.note(notes.PACKAGES, "iptables", "gcc")
    notes.note(notes.LINKS, "/usr/local/bin/perry")
    assert notes.noted(notes.PACKAGES) == ["docker.io", "iptables", "gcc"]
    assert notes.noted(notes.LINKS) == ["/usr/local/bin/perry"]


def test_a_second_note_of_the_same_leaves_the_file_alone(build: Path) -> None:
    notes.note(notes.PACKAGES, "gcc")
    before = (build / "installed.json").stat().st_mtime_ns
    notes.note(notes.PACKAGES, "gcc")
    assert (build / "installed.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("said", "version"),
    [("go1.26.8", (1, 26, 8)), ("go1.26.8\n", (1, 26, 8)), ("go1.22", (1, 22)), ("devel go1.28", ()), ("", ())],
)
def test_versions_of_go(said: str, version: tuple[int, ...]) -> None:
    assert tools.version_of(said) == version


def test_the_go_that_is_brought_builds_what_is_here() -> None:
    brought = tools.version_of(f"go{tools.GO_VERSION}")
    for module in tools.GO_MODULES:
        assert (1, 21) < tools.wanted_go((CHECKOUT / module).read_text()) <= brought


def go_that_says(folder: Path, version: str, toolchain: str) -> None:
    folder.mkdir(parents=True)
    program = folder / "go"
    program.write_text(f'#!/bin/sh\n[ "$2" = GOVERSION ] && echo {version} || echo {toolchain}\n')
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("version", "toolchain", "serves"),
    [
        ("go1.99.0", "local", True),
        ("go1.22.2", "auto", True),
        ("go1.22.2", "local", False),
        ("go1.19.8", "auto", False),
    ],
)
def test_a_go_serves_that_is_new_enough_or_fetches_what_is(
    version: str, toolchain: str, serves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_that_says(tmp_path / "bin", version, toolchain)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr(tools, "GO", tmp_path / "none")
    assert (tools.find_go() is not None) == serves


@pytest.mark.parametrize(
    "environment",
    [
        {"HOME": "/home/somebody"},
        {"HOME": "/root", "SUDO_USER": "nobody"},
        {"HOME": "/root", "SUDO_USER": "no such person"},
        {"HOME": "/home/somebody", "PERRY_CONFIG_DIR": "/elsewhere"},
    ],
)
def test_the_same_configuration_folder_as_perry(
    environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "SUDO_USER", "PERRY_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert perry.config_folder() == config_folder(os.environ)


def test_the_instance_is_the_configured_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRY_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("PERRY_INSTANCE", raising=False)
    assert perry.instance() == "perry"
    (tmp_path / "config.json").write_text('{"instance": "mine"}')
    assert perry.instance() == "mine"
    monkeypatch.setenv("PERRY_INSTANCE", "other")
    assert perry.instance() == "other"
    assert device.container() == "other-quickstart-device"


# --- the link on the PATH


@pytest.fixture
def local_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ~/.local/bin on the PATH, and no other place."""
    folder = tmp_path / ".local" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_the_link_comes_stays_and_goes(local_bin: Path) -> None:
    assert quickstart.link() == f"perry is {local_bin}/perry now."
    assert quickstart.link() == f"perry is {local_bin}/perry, as before."
    assert notes.noted(notes.LINKS) == [f"{local_bin}/perry"]


@pytest.mark.parametrize("kind", ["file", "link", "dead link"])
def test_a_perry_of_somebody_else_is_left_alone(local_bin: Path, kind: str, tmp_path: Path) -> None:
    place = local_bin / "perry"
    if kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path if kind == "link" else tmp_path / "gone")
    assert "export PATH=" in quickstart.link()
    assert notes.noted(notes.LINKS) == []
    notes.note(notes.LINKS, str(place))
    clean.remove_files()
    assert place.is_symlink() or place.read_text() == "mine"


# --- what quickstart-clean leaves alone


def test_only_what_the_agent_wrote_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "config"
    (folder / "ssh").mkdir(parents=True)
    for name in ("token", "state.db", "config.json", "client.json"):
        (folder / name).write_text("")
    monkeypatch.setenv("PERRY_CONFIG_DIR", str(folder))
    clean.remove_files()
    assert (folder / "token").exists(), "quickstart was not the first to use this folder"
    notes.note(notes.AGENT, str(folder))
    clean.remove_files()
    assert sorted(path.name for path in folder.iterdir()) == ["client.json", "config.json"]


@pytest.mark.parametrize(
    ("code", "said"), [(0, ""), (clean.NOTHING_TO_LEAVE, ""), (1, "may still be on your tailnet: no")]
)
def test_the_agent_leaves_the_tailnet_before_it_goes(
    code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, ...]] = []

    def perry_(*words: str) -> subprocess.CompletedProcess[str]:
        asked.append(words)
        return subprocess.CompletedProcess(words, code if words[0] == "tailnet" else 0, "", "no")

    monkeypatch.setattr(clean, "docker", lambda *_: ["volume"])
    monkeypatch.setattr(clean, "PERRY", Path(__file__))
    monkeypatch.setattr(clean, "perry", perry_)
    clean.leave_tailnet()
    assert asked == [("agent", "run", "-d"), ("tailnet", "leave")]
    assert said in capsys.readouterr().out and (said or not capsys.readouterr().out)


@pytest.mark.parametrize("forced", [False, True])
def test_workspaces_of_somebody_are_not_lost(forced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean, "docker", lambda *_: ["hello", "hello", "thesis", ""])
    notes.note(notes.WORKSPACES, "hello")
    if forced:
        clean.refuse_others(forced)
        return
    with pytest.raises(Trouble, match="thesis; save what you need"):
        clean.refuse_others(forced)


def test_an_engine_of_somebody_else_is_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "dockerd.pid"
    monkeypatch.setattr(engine, "PID_FILE", pid_file)
    assert not engine.stop_background()
    # A number that has gone on to another program.
    pid_file.write_text(f"{os.getpid()}\n")
    assert engine.background_process() is None
    assert not engine.stop_background()


# --- what is missing


def nothing_here(program: str, path: str | None = None) -> None:
    return None


def test_names_what_is_missing_before_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", nothing_here)
    monkeypatch.setattr(packages, "has_candidate", lambda _: False)
    monkeypatch.setattr(ensure, "has_module", lambda _: False)
    monkeypatch.setattr(tools, "CERTIFICATES", "/nowhere")
    missing = ensure.missing_packages(frozenset(ensure.Part), wants_uv=True, wants_engine=True)
    assert missing == [
        f"python3.{sys.version_info.minor}-venv",
        "ca-certificates",
        "docker.io",
        "iptables",
        "iproute2",
        "openssh-client",
        "gcc",
        "libc6-dev",
        "curl",
        "nftables",
        "procps",
    ]
    ensure.name_them(missing, wants_uv=True, wants_go=True, wants_engine=True)
    said = capsys.readouterr().out
    assert said.startswith("Missing here, and installed now: by apt: ")
    assert f"uv {tools.UV_VERSION}, Go {tools.GO_VERSION}" in said


def test_installs_nothing_where_nothing_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda program, path=None: f"/usr/bin/{program}")
    assert ensure.missing_packages(frozenset({ensure.Part.ENGINE}), wants_uv=False, wants_engine=False) == []
    ensure.name_them([], wants_uv=False, wants_go=False, wants_engine=False)
    assert capsys.readouterr().out == "Everything that is needed is here.\n"


def test_the_client_is_a_package_of_its_own_in_newer_debians(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", nothing_here)
    monkeypatch.setattr(packages, "has_candidate", lambda package: package == "docker-cli")
    missing = ensure.missing_packages(frozenset({ensure.Part.ENGINE}), wants_uv=False, wants_engine=True)
    assert missing == ["docker.io", "iptables", "iproute2", "docker-cli", "openssh-client"]


# --- how it ends


def test_trouble_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def troubled() -> None:
        raise Trouble("the moon is missing; wait for it.")

    assert running.ends_with_a_sentence(troubled) == 1
    assert capsys.readouterr().err == "Stopped: the moon is missing; wait for it.\n"


def test_a_command_that_fails_shows_what_it_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Trouble, match=r"^could not fetch the moon \(exit code 3\)"):
        running.run(["sh", "-c", "echo no rocket; exit 3"], "fetch the moon", quiet=True)
    assert capsys.readouterr().err == "no rocket\n"


def test_phases_end_at_the_first_failure(tmp_path: Path) -> None:
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\necho "made $2"\n[ "$2" != second ]\n')
    make.chmod(0o755)
    done = subprocess.run(
        [str(CHECKOUT / "bootstrap" / "phases"), "first", "second", "third"],
        capture_output=True, text=True, env={**os.environ, "MAKE": str(make)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "=== first: 0 s" in done.stdout
    assert "made third" not in done.stdout
    assert "=== second failed after 0 s" in done.stderr


def test_make_explains_every_target_that_people_call() -> None:
    said = subprocess.run(["make", "-C", str(CHECKOUT), "help"], capture_output=True, text=True, check=True).stdout
    for target in ("quickstart", "quickstart-clean", "test", "check", "lint", "types", "arrows", "generated", "bench",
                   "dev", "prove"):  # fmt: skip
        assert f"make {target} " in said


def test_says_when_the_group_counts() -> None:
    assert "group docker" not in quickstart.farewell()
    notes.note(notes.MEMBERS, "somebody")
    assert "You are in the group docker from your next login on" in quickstart.farewell()
