"""Tables and values, as terminals of different widths show them."""

import pytest

from cli import output

HEADINGS = ("NAME", "STATE", "TEXT")
ROWS = [("a", "done", "What it was told\x1b[31m to do"), ("bbbb", "waiting", "日本語 and more")]


@pytest.mark.parametrize(
    ("most", "lines"),
    [
        (
            None,
            [
                "NAME  STATE    TEXT",
                "a     done     What it was told [31m to do",
                "  └ x",
                "bbbb  waiting  日本語 and more",
            ],
        ),
        (
            50,
            [
                "NAME  STATE    TEXT",
                "a     done     What it was told [31m to do",
                "  └ x",
                "bbbb  waiting  日本語 and more",
            ],
        ),
        (
            30,
            [
                "NAME  STATE",
                "a     done",
                "  What it was told [31m to do",
                "  └ x",
                "bbbb  waiting",
                "  日本語 and more",
            ],
        ),
        (12, ["NAME  STATE", "a     done", "  What it w…", "  └ x", "bbbb  waiti…", "  日本語 an…"]),
    ],
)
def test_a_sentence_has_room_or_a_line_of_its_own(
    most: int | None, lines: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "width", lambda stream=None: most)
    output.table(HEADINGS, ROWS, ["x", None], least=20)
    assert capsys.readouterr().out.splitlines() == lines


def test_a_row_without_a_sentence_has_no_second_line() -> None:
    assert output.laid_out_with_room(HEADINGS, [("a", "b", "")], 20, 28)[1] == [["a     b"]]


def test_lines_of_a_value_stand_under_its_first(capsys: pytest.CaptureFixture[str]) -> None:
    output.pairs([("Task", "t-1"), ("Gone", None), ("Text", "One\r\nTask  t-2\x1b[2J\n\nend\n")])
    assert capsys.readouterr().out == "Task  t-1\nText  One\n      Task  t-2 [2J\n\n      end\n"
