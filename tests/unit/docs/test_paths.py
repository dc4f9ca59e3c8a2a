"""What documentation and docstrings name of this checkout is there: files, folders, modules, classes."""

import ast
import os
import re
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
PACKAGES = ("bootstrap", "cli", "controlplane", "protocol", "tests", "worker")
FOLDERS = (*PACKAGES, "clients", "docs", "images", "sidecar", "skills")
BELOW = tuple(f"{folder}/" for folder in FOLDERS)
PASSED_OVER = {"__pycache__", "node_modules"}
PAGES = [*CHECKOUT.glob("*.md"), *(page for folder in ("docs", "skills") for page in (CHECKOUT / folder).rglob("*.md"))]
PATH = re.compile(r"[\w.-]+(?:/[\w.-]*)*")
PROGRAMS = (".py", ".go", ".ts")
ROLE = re.compile(rf":(?:class|mod|func|meth|data|attr):`~?((?:{'|'.join(PACKAGES)})\.[\w.]+)`")


@cache
def there() -> frozenset[str]:
    """Every file and folder, with each way to end its path."""
    ends: set[str] = set()
    for top in FOLDERS:
        for folder, folders, files in os.walk(CHECKOUT / top):
            folders[:] = [each for each in folders if each not in PASSED_OVER]
            at = Path(folder).relative_to(CHECKOUT)
            for parts in (at.parts, *((*at.parts, name) for name in files)):
                ends.update("/".join(parts[start:]) for start in range(len(parts)))
    return frozenset(ends)


def spelled_out(text: str) -> list[str]:
    """``a/{b,c}.md`` is two."""
    braces = re.match(r"(.*?){([^{}]*)}(.*)", text)
    if braces is None:
        return [text]
    head, inner, tail = braces.groups()
    return [each for one in inner.split(",") for each in spelled_out(f"{head}{one}{tail}")]


def named(page: str) -> set[str]:
    """The paths of this checkout that a page names: those below one of its folders, and programs' files."""
    words = {path for quoted in re.findall(r"`([^`\n]+)`", page) for path in spelled_out(quoted)}
    words |= set(re.findall(r"\bdocs/[\w/.-]+\.md\b", page))
    return {
        word.rstrip("/")
        for word in words
        if PATH.fullmatch(word) and (word.startswith(BELOW) or word.endswith(PROGRAMS))
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_paths_of_a_page_are_there(page: Path) -> None:
    assert named(page.read_text()) - there() == set()


def test_paths_are_recognised() -> None:
    page = (
        "`cli/gone.py`, `gone.go`, docs/howto/gone.md, `docs/{gone,api}.md`, `state.db`, `perry`, `controlplane/wake`"
    )
    gone = {"cli/gone.py", "gone.go", "docs/howto/gone.md", "docs/gone.md"}
    assert named(page) == gone | {"docs/api.md", "controlplane/wake"} and named(page) - there() == gone


@cache
def names_in(module: Path) -> tuple[frozenset[str], frozenset[str]]:
    """What it defines, ``Class.method`` too; and what it takes from others."""
    defined: set[str] = set()
    taken: set[str] = set()

    def gather(body: list[ast.stmt], prefix: str) -> None:
        for each in body:
            match each:
                case ast.ClassDef(name=name):
                    defined.add(f"{prefix}{name}")
                    gather(each.body, f"{prefix}{name}.")
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    defined.add(f"{prefix}{name}")
                case ast.Assign(targets=targets):
                    defined.update(f"{prefix}{target.id}" for target in targets if isinstance(target, ast.Name))
                case ast.AnnAssign(target=ast.Name(id=name)):
                    defined.add(f"{prefix}{name}")
                case ast.ImportFrom(names=names):
                    taken.update(alias.asname or alias.name for alias in names)

    gather(ast.parse(module.read_text()).body, "")
    return frozenset(defined), frozenset(taken)


def resolves(dotted: str) -> bool:
    """Whether there is a module of that name, or one that has it."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        at = CHECKOUT.joinpath(*parts[:count])
        for module in (at.with_suffix(".py"), at / "__init__.py"):
            if module.is_file():
                defined, taken = names_in(module)
                return count == len(parts) or ".".join(parts[count:]) in defined or parts[count] in taken
    return False


def test_what_docstrings_refer_to_is_there() -> None:
    cited = {
        (dotted, str(file.relative_to(CHECKOUT)))
        for package in PACKAGES
        for file in (CHECKOUT / package).rglob("*.py")
        for dotted in ROLE.findall(file.read_text())
    }
    assert len(cited) > 50
    assert {each for each in cited if not resolves(each[0])} == set()


@pytest.mark.parametrize(
    "gone", ["controlplane.gone", "controlplane.ports.Gone", "controlplane.errors.PerryError.gone"]
)
def test_references_to_nothing_are_recognised(gone: str) -> None:
    assert not resolves(gone)
