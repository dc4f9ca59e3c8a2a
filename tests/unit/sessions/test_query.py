"""What people type, and what is found by it."""

from contextlib import suppress

import pytest

from controlplane.errors import InvalidInput
from controlplane.sessions import query
from protocol.sessions import (
    ListMessages,
    ListSessions,
    Message,
    MessageRole,
    SearchSessions,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from tests.fakes.worker import message
from tests.unit.sessions.conftest import Index


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        ("mend fence", '"mend" AND "fence"'),
        ('"mend the fence" now', '"mend the fence" AND "now"'),
        ("fen*", '"fen" *'),
        ("foo_bar.py", '"foo_bar.py"'),
        ('say "hi', '"say" AND "hi"'),
        ("a -> b && --", '"a" AND "b"'),
        ("NOT OR AND NEAR(", '"NOT" AND "OR" AND "AND" AND "NEAR("'),
        ("said:x scope:w1", '"said:x" AND "scope:w1"'),
    ],
)
def test_expressions(typed: str, understood: str) -> None:
    assert query.expression(typed) == understood


@pytest.mark.parametrize("typed", ["->", '""', " ", "a*", "foo-b*", "w " * 40, "*"])
def test_what_cannot_be_searched_is_a_sentence(typed: str) -> None:
    with pytest.raises(InvalidInput, match=r"give|search"):
        query.expression(typed)


async def test_any_text_can_be_asked_for(index: Index) -> None:
    """Whatever is typed is words, and never an operator of the database."""
    for typed in ('"', '""', 'a"b', "a'b;--", "{said}: x", "^a", "a + b", "(a", "\0a", "a" * 1_000, "é*o", "日本語"):
        with suppress(InvalidInput):
            assert await index.found(typed) == []


async def test_what_is_found(index: Index) -> None:
    worker = index.worker()
    worker.write(
        "one", message(0, "Please mend the old fence\ue000", MessageRole.USER), message(1, "The café is open_late.py")
    )
    worker.write("two", message(0, "the fence of beta"), agent="codex")
    tool = Message(
        ordinal=0, id="t", role=MessageRole.ASSISTANT,
        blocks=[Text(text="looking"), Thinking(text="hmm"),
                ToolCall(call_id="c", name="Bash", input='{"a":"ls\\nfence"}'),
                ToolResult(call_id="c", output="x" * 50_000 + " thelastword")])  # fmt: skip
    worker.write("three", tool)
    async with index.followed():
        await index.settled()
        assert set(await index.found("fence")) == {("one", 0), ("two", 0), ("three", 0)}
        # What was said comes before what tools had.
        assert (await index.found("fence"))[-1] == ("three", 0)
        assert await index.found("fence", agent="codex") == [("two", 0)]
        assert await index.found("fence", workspace="alpha", agent="claude", limit=1) == [("one", 0)]
        assert await index.found("cafe open_late") == [("one", 1)]
        assert await index.found('"old fence"') == [("one", 0)]
        assert await index.found('"fence old"') == []
        assert await index.found("thelastw* looking") == [("three", 0)]
        [hit] = (await index.sessions.search(SearchSessions(query="old"))).items
        assert hit.snippet == "Please mend the \ue000old\ue001 fence�"
        [hit] = (await index.sessions.search(SearchSessions(query="thelastword"))).items
        assert "\ue000thelastword\ue001" in hit.snippet


async def test_pages_of_what_is_found(index: Index) -> None:
    worker = index.worker()
    worker.write("one", *(message(at, f"fence {at}") for at in range(25)))
    async with index.followed():
        await index.settled()
    found: list[int] = []
    cursor = None
    while True:
        page = await index.sessions.search(SearchSessions(query="fence", limit=10, cursor=cursor))
        found += [hit.ordinal for hit in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert sorted(found) == list(range(25))
    for wrong in (SearchSessions(query="fence", cursor="x"), SearchSessions(query="fence", cursor="9.9")):
        with pytest.raises(InvalidInput, match="cursor"):
            await index.sessions.search(wrong)


async def test_pages_of_sessions_and_messages(index: Index) -> None:
    worker = index.worker()
    for number in range(12):
        worker.write(f"s{number:02}", message(0, "x"), parent="s00" if number > 9 else None)
    worker.write("s00", *(message(at, "y") for at in range(1, 30)))
    async with index.followed():
        await index.settled()
    page = await index.sessions.list_(ListSessions(limit=6))
    rest = await index.sessions.list_(ListSessions(limit=6, cursor=page.next_cursor))
    assert [len(page.items), len(rest.items), rest.next_cursor] == [6, 4, None]
    assert {each.session_id for each in (await index.sessions.list_(ListSessions(parent="s00"))).items} == {
        "s10",
        "s11",
    }
    assert [each.session_id for each in await index.all(id_prefix="s07")] == ["s07"]
    with pytest.raises(InvalidInput, match="cursor"):
        await index.sessions.list_(ListSessions(cursor="x"))

    async def ordinals(**wanted: int) -> tuple[list[int], bool, bool]:
        asked = ListMessages(workspace="alpha", agent="claude", session_id="s00", **wanted)
        found = await index.sessions.messages(asked)
        return [each.ordinal for each in found.items], found.more_before, found.more_after

    assert await ordinals(limit=3) == ([27, 28, 29], True, False)
    assert await ordinals(limit=3, before=27) == ([24, 25, 26], True, True)
    assert await ordinals(limit=3, before=2) == ([0, 1], False, True)
    assert await ordinals(limit=3, after=-1) == ([0, 1, 2], False, True)
    assert await ordinals(limit=3, after=27) == ([28, 29], True, False)
    assert await ordinals(limit=3, after=29) == ([], True, False)
    assert await ordinals(limit=3, before=0) == ([], False, True)
    with pytest.raises(InvalidInput, match="not for both"):
        await ordinals(before=3, after=1)
