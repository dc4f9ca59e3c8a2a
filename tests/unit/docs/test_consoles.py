"""How what the documentation shows of a terminal is read."""

from pathlib import Path

import pytest

from tests import consoles
from tests.consoles import Command

PAGE = r"""# Title

```console
$ perry list                # what there is
NAME   STATUS
alpha  …
$ perry dispatch x --create \
    'Fix it:
with `care`  # and taste.'
$ true
```

```sh
$ none
```
"""


def test_commands_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert consoles.commands(page) == [
        Command("perry list", ("NAME   STATUS", "alpha  …")),
        Command("perry dispatch x --create \\\n    'Fix it:\nwith `care`  # and taste.'", ()),
        Command("true", ()),
    ]
    assert consoles.blocks(page, "sh") == ["$ none\n"]
    assert "perry" not in consoles.prose(page) and "# Title" in consoles.prose(page)


@pytest.mark.parametrize(
    ("printed", "missing"),
    [
        ("NAME   STATUS\nalpha  running\n", None),
        ("NAME STATUS AGE\nNAME STATUS\nbeta x\nalpha     running  3 s\n", None),
        ("alpha  running\nNAME   STATUS\n", "alpha  …"),
        ("NAME\nalpha  running\n", "NAME   STATUS"),
        ("", "NAME   STATUS"),
    ],
)
def test_what_is_shown_is_seen(printed: str, missing: str | None) -> None:
    assert Command("perry list", ("NAME   STATUS", "alpha  …")).missing(printed) == missing


def test_a_command_without_an_end(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ perry exec 'alpha\n```\n")
    with pytest.raises(AssertionError, match="does not end"):
        consoles.commands(page)
