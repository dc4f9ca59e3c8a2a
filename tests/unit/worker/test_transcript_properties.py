"""Whatever a file holds, and in whatever pieces it is written and read: the same messages under the same ordinals."""

import json
import os
import tempfile
from pathlib import Path
from unittest import mock

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.worker.agents import Reader
from worker.agents.claude_format import ClaudeFormat
from worker.agents.codex_format import CodexFormat
from worker.agents.gemini import GeminiFormat
from worker.sessions import lines, transcript
from worker.sessions.transcript import Format

IDS = st.sampled_from(["a", "b", "c", "d", "e", "f", "g"])

TEXT = st.text(max_size=12) | st.sampled_from(['{"type":"user"}', "\\", '"}', "👋 Zürich", "\ud83d"])


def as_line(record: object) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()


@st.composite
def claude_records(draw: st.DrawFn) -> bytes:
    kind = draw(
        st.sampled_from(["user", "assistant", "assistant", "assistant", "result", "custom-title", "attachment"])
    )
    text = draw(TEXT)
    common = {
        "uuid": draw(IDS),
        "timestamp": "2026-11-21T10:53:52.825Z",
        "cwd": "/p",
        "isSidechain": draw(st.booleans()),
    }
    if kind == "custom-title":
        return as_line({"type": "custom-title", "customTitle": text})
    if kind == "attachment":
        return as_line({**common, "attachment": {"type": "user", "text": text}, "type": "attachment"})
    if kind == "user":
        return as_line({**common, "type": "user", "message": {"role": "user", "content": text}})
    if kind == "result":
        content = [{"type": "tool_result", "tool_use_id": "t", "content": text}]
        return as_line({**common, "type": "user", "message": {"content": content}})
    usage = {"input_tokens": draw(st.integers(0, 9)), "output_tokens": draw(st.integers(0, 9))}
    block = {"type": "text", "text": text}
    said = {"id": draw(IDS), "model": "m", "content": [block], "usage": usage}
    return as_line({**common, "message": said, "type": "assistant"})


@st.composite
def codex_records(draw: st.DrawFn) -> bytes:
    text = draw(TEXT)
    payload = draw(
        st.sampled_from(
            [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]},
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": text}]},
                {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": text}]},
                {"type": "function_call", "call_id": "c", "name": "n", "arguments": text},
                {"type": "function_call_output", "call_id": "c", "output": text},
            ]
        )
    )
    if draw(st.booleans()):
        return as_line(payload)
    return as_line({"timestamp": "2026-11-21T10:54:55.360Z", "type": "response_item", "payload": payload})


@st.composite
def gemini_records(draw: st.DrawFn) -> bytes:
    def message() -> dict[str, object]:
        kind = draw(st.sampled_from(["user", "gemini"]))
        return {"id": draw(IDS), "type": kind, "content": [{"text": draw(TEXT)}], "tokens": {"input": 3, "output": 1}}

    if draw(st.integers(0, 4)) == 0:
        return as_line({"$set": {"messages": [message() for _ in range(draw(st.integers(0, 3)))]}})
    return as_line(message())


LINE = 12_000
"""Longer than all records of a file together: a record that is told while its line has not ended is told for good."""

TOO_LONG = b"\n" + b"x" * (LINE + 100)

JUNK = st.sampled_from([b"\n", b"\n\n", b"\0\0", b"\xff\xfe", b'{"type":"user","mess', b"}", b"{" * 40, TOO_LONG])

FORMATS: st.SearchStrategy[tuple[Format, st.SearchStrategy[bytes]]] = st.sampled_from(
    [(ClaudeFormat(), claude_records()), (CodexFormat(), codex_records()), (GeminiFormat(), gemini_records())]
)


@st.composite
def files(draw: st.DrawFn) -> tuple[Format, bytes]:
    form, records = draw(FORMATS)
    pieces = draw(st.lists(st.tuples(records, st.booleans()) | JUNK, max_size=25))
    joined = b"".join(
        piece if isinstance(piece, bytes) else piece[0] + (b"\n" if piece[1] else b"") for piece in pieces
    )
    # Most records do end.
    return form, joined.replace(b"}{", b"}\n{") if draw(st.booleans()) else joined


class File:
    """Only what a :class:`Reader` needs of an agent."""

    def __init__(self, path: Path, form: Format) -> None:
        self.path, self.form = path, form

    def read(self, found: object, cursor: str | None, limit: int) -> transcript.Reading:
        fd = os.open(self.path, os.O_RDONLY)
        try:
            reading = transcript.read(fd, self.form, cursor, limit)
        finally:
            os.close(fd)
        return reading


def follow(path: Path, form: Format, content: bytes, cuts: list[int], limits: list[int]) -> Reader:
    """Write a content up to each cut, and read to its end each time."""
    reader = Reader(File(path, form), None)  # type: ignore[arg-type]
    path.write_bytes(b"")
    written = 0
    for number, cut in enumerate([*sorted(cuts), len(content)]):
        with path.open("ab") as file:
            file.write(content[written:cut])
        written = max(written, cut)
        reader.catch_up(limits[number % len(limits)])
    return reader


@settings(max_examples=200, deadline=None)
@given(
    file=files(),
    cuts=st.lists(st.integers(0, 1000), max_size=8),
    limits=st.lists(st.sampled_from([1, 300, 1 << 20]), min_size=1, max_size=3),
    bounds=st.sampled_from([(1 << 24, 1 << 20, 1 << 22, 1 << 25), (LINE, 64, 900, 256), (LINE, 100, 400, 64)]),
)
def test_any_bytes_in_any_pieces_are_the_same_messages(
    file: tuple[Format, bytes], cuts: list[int], limits: list[int], bounds: tuple[int, int, int, int]
) -> None:
    form, content = file
    line, chunk, span, piece = bounds
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(lines, "LINE_LIMIT", line),
        mock.patch.object(lines, "CHUNK", chunk),
        mock.patch.object(transcript, "OPEN_SPAN", span),
        mock.patch.object(transcript, "SLICE", piece),
    ):
        once = follow(Path(folder) / "once", form, content, [], [1 << 30])
        pieces = follow(Path(folder) / "pieces", form, content, [len(content) * cut // 1000 for cut in cuts], limits)
    assert pieces.resets == 0
    assert sorted(once.messages) == list(range(len(once.messages)))
    assert pieces.messages == once.messages
    assert state_of(pieces) == state_of(once)
    assert pieces.skipped == once.skipped
    msgspec.json.encode(list(once.messages.values()))


def state_of(reader: Reader) -> object:
    assert reader.cursor is not None
    return msgspec.json.decode(reader.cursor, type=transcript.Cursor).state
