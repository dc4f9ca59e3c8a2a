"""docs/settings.md, made from the settings themselves: what stands below a field in the source is its documentation."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import msgspec

from controlplane.settings.loading import variable
from controlplane.settings.tree import Settings

HEAD = """# Settings

`~/.config/perry/config.json` holds them (`PERRY_CONFIG_DIR` names another folder); a variable of the environment wins
over the file. A key that is none of these is an error that names it. Lists are separated by commas in a variable. This
page is made from the source by `make generate`.

| setting | variable | default | meaning |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(
        f"| `{'.'.join(path)}` | `{variable(path)}` | `{_shown(default)}` | {meaning} |\n"
        for path, default, meaning in _rows(Settings, Settings(), ())
    )


def _rows(
    kind: type[msgspec.Struct], value: msgspec.Struct, prefix: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    documented = _documented(kind)
    for field in msgspec.structs.fields(kind):
        path = (*prefix, field.encode_name)
        default = getattr(value, field.name)
        if isinstance(default, msgspec.Struct):
            yield from _rows(type(default), default, path)
        else:
            yield path, default, documented[field.name]


def _documented(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Field name to the string that follows it in the class. KeyError later, where one has none."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for one, following in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(one, ast.AnnAssign)
            and isinstance(one.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            found[one.target.id] = " ".join(str(following.value.value).split())
    return found


def _shown(default: Any) -> str:
    return msgspec.json.encode(default).decode()
