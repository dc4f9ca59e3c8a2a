"""One value of config.json changes, and nothing else of its text."""

import json

import pytest

from controlplane.config.edit import with_value, without

TEXT = """{
    "workspacePrefix": "ws-",
    "tailscale": {
        "authKey": "theirs"
    },
    "ssh": {
        "firstPort": 3000
    },
    "naïve": [1, 2]
}
"""


def test_keys_order_and_indentation_stay() -> None:
    assert (
        with_value(TEXT, ["ssh", "firstPort"], 3000)
        == json.dumps(json.loads(TEXT), indent=4, ensure_ascii=False) + "\n"
    )
    changed = with_value(TEXT, ["ssh", "bind"], "0.0.0.0")
    assert (
        changed.replace(',\n        "bind": "0.0.0.0"', "").replace("[\n        1,\n        2\n    ]", "[1, 2]") == TEXT
    )
    assert without(with_value(TEXT, ["port"], 1), ["port"]).startswith(TEXT[:60])


@pytest.mark.parametrize("text", ["", "{}", " \n"])
def test_a_file_that_is_not_there_is_begun(text: str) -> None:
    assert with_value(text, ["ssh", "bind"], "::") == '{\n  "ssh": {\n    "bind": "::"\n  }\n}\n'


def test_a_file_on_one_line_stays_on_one_line() -> None:
    assert with_value('{"port": 1, "host": "::"}', ["port"], 2) == '{"port": 2, "host": "::"}\n'


def test_objects_that_are_empty_go_too() -> None:
    assert without('{"a": {"b": {"c": 1}}, "d": 2}', ["a", "b", "c"]) == '{"d": 2}\n'
    assert without('{"a": {"b": 1, "c": 2}}', ["a", "b"]) == '{"a": {"c": 2}}\n'
    for path in (["x"], ["a", "b", "c"], ["a", "x"]):
        assert without('{"a": {"b": 1}}', path) == '{"a": {"b": 1}}', "nothing was there"


@pytest.mark.parametrize("text", ["[]", "{", '{"ssh": 1}'])
def test_what_cannot_be_changed_is_said(text: str) -> None:
    with pytest.raises(ValueError):
        with_value(text, ["ssh", "bind"], "::")
