"""What a person sees of a build."""

import io
from pathlib import Path

import pytest

from controlplane.images.progress import Progress
from controlplane.images.service import BuildReport

SAID = (
    BuildReport(image="base", kind="step", text="building perry/base:latest"),
    BuildReport(image="base", kind="line", text="Step 1/10 : FROM debian"),
    BuildReport(image="base", kind="line", text="Get:1 some package\x1b[31m"),
    BuildReport(image="base", kind="done", text="81 MB, built in 25.1 s"),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(out: io.StringIO, log: Path) -> str:
    progress = Progress(out, log)
    for said in SAID:
        progress(said)
    progress.close()
    return out.getvalue()


def test_in_a_pipe_there_are_steps_and_all_of_it_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / ".build" / "images.log"
    assert shown(io.StringIO(), log) == (
        "base           building perry/base:latest\n"
        "base           Step 1/10 : FROM debian\n"
        "base           81 MB, built in 25.1 s\n"
    )
    assert "Get:1 some package" in log.read_text()


def test_on_a_terminal_a_tools_line_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    text = shown(Terminal(), tmp_path / "images.log")
    assert "\r\x1b[K\x1b[2mbase           Get:1 some pac\x1b[0m" in text
    assert text.endswith("\r\x1b[Kbase           81 MB, built in 25.1 s\n\r\x1b[K")
