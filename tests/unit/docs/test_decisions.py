"""Each decision has a number of its own, and what cites one finds it."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
DECISIONS = sorted((CHECKOUT / "docs" / "adr").glob("[0-9]*.md"))
NUMBERS = {decision.name[:4] for decision in DECISIONS}
FOLDERS = ("cli", "controlplane", "docs", "images", "protocol", "sidecar", "skills", "tests", "worker")
KINDS = {".go", ".md", ".py", ".sh", ".toml", ""}


def test_each_has_a_number_of_its_own_with_which_its_title_begins() -> None:
    assert len(NUMBERS) == len(DECISIONS) > 0
    for decision in DECISIONS:
        assert decision.read_text().startswith(f"# {int(decision.name[:4])}. "), decision.name


def test_what_is_cited_is_there() -> None:
    files = [*CHECKOUT.glob("*.md"), *(file for folder in FOLDERS for file in (CHECKOUT / folder).rglob("*"))]
    cited = {
        (number, str(file.relative_to(CHECKOUT)))
        for file in files
        if file.suffix in KINDS and "node_modules" not in file.parts and file.is_file()
        for number in re.findall(r"adr/(\d{4})", file.read_text(errors="replace"))
    }
    cited |= {(number, each.name) for each in DECISIONS for number in re.findall(r"\b00\d\d\b", each.read_text())}
    assert cited
    assert not {each for each in cited if each[0] not in NUMBERS}
