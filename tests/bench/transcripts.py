"""Makes transcripts as Claude Code writes them: every record that it has, in the proportions of a working day.

Of a turn of some thirteen kilobytes two fifths are conversation; the rest is what the agent notes beside it, and what
tools gave back a second time. Words are made up, as often as words are (the second half as often as the first, and so
on), and the same for the same seed.
"""

import itertools
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class Writer:
    """Writes sessions of one home folder."""

    def __init__(self, home: Path, seed: int = 1) -> None:
        self.folder = home / ".claude" / "projects" / "-home-workspace-alpha"
        self._random = random.Random(seed)
        self.words = self._vocabulary(60_000)
        weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(self.words))))
        self._said = [self._random.choices(self.words, cum_weights=weights, k=4_000) for _ in range(200)]

    def _vocabulary(self, count: int) -> list[str]:
        found: dict[str, None] = {}
        while len(found) < count:
            found["".join(self._random.choices("etaoinshrdlucmfwypvbgk", k=self._random.randint(2, 10)))] = None
        return list(found)

    def text(self, words: int) -> str:
        page = self._random.choice(self._said)
        begin = self._random.randrange(len(page) - words)
        return " ".join(page[begin : begin + words])

    def write(self, megabytes: float, sessions: int) -> int:
        """So much in so many sessions; the bytes that it became."""
        self.folder.mkdir(parents=True, exist_ok=True)
        each, written = megabytes * 1e6 / sessions, 0
        for number in range(sessions):
            written += self.session(f"{number:08x}-0000-4000-8000-000000000000", int(each), number)
        return written

    def session(self, session_id: str, size: int, number: int) -> int:
        """One session of about that many bytes."""
        written = 0
        at = BEGAN + timedelta(minutes=17 * number)
        with (self.folder / f"{session_id}.jsonl").open("wb") as file:
            for turn in itertools.count():
                for record in self.turn(session_id, turn, at + timedelta(seconds=40 * turn)):
                    written += file.write(record)
                if written >= size:
                    return written
        return written

    def turn(self, session_id: str, turn: int, at: datetime) -> Iterator[bytes]:
        """What a turn adds: a question, some thought, a tool, what came of it, an answer."""
        moments = (at + timedelta(seconds=2 * step) for step in itertools.count())

        def record(kind: str, **fields: Any) -> bytes:
            common = {
                "parentUuid": f"{self._random.getrandbits(128):032x}",
                "isSidechain": False,
                "userType": "external",
                "cwd": "/home/workspace/alpha",
                "sessionId": session_id,
                "version": "2.1.329",
                "gitBranch": "main",
                "uuid": f"{self._random.getrandbits(128):032x}",
                "timestamp": next(moments).isoformat().replace("+00:00", "Z"),
            }
            return json.dumps({"type": kind, **fields, **common}, separators=(",", ":")).encode() + b"\n"

        def assistant(message: str, block: dict[str, Any]) -> bytes:
            usage = {"input_tokens": 12, "output_tokens": 340, "cache_read_input_tokens": 20_000}
            said = {"id": message, "role": "assistant", "model": "claude-1", "content": [block], "usage": usage}
            return record("assistant", message=said)

        call, ids = f"toolu_{session_id[:8]}_{turn}", [f"msg_{turn}_{step}" for step in range(2)]
        yield record("user", message={"role": "user", "content": self.text(35)})
        yield record("attachment", attachment={"type": "context", "content": self.text(320)})
        yield assistant(ids[0], {"type": "thinking", "thinking": self.text(90), "signature": self.text(30)})
        tool = {"type": "tool_use", "id": call, "name": "Bash", "input": {"command": self.text(25)}}
        yield assistant(ids[0], tool)
        output = "\n".join(self.text(60) for _ in range(8))
        given = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call, "content": output}]}
        yield record("user", message=given, toolUseResult={"stdout": output, "stderr": "", "interrupted": False})
        yield assistant(ids[1], {"type": "text", "text": self.text(130)})
        yield record("system", subtype="stop_hook_summary", content=self.text(60))

    def answer(self, session_id: str, text: str, number: int) -> bytes:
        """A record of a single answer, to be appended."""
        said = {"id": f"msg_live_{number}", "role": "assistant", "content": [{"type": "text", "text": text}]}
        moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        fields = {"type": "assistant", "message": said, "uuid": f"live-{number}", "sessionId": session_id}
        return json.dumps({**fields, "timestamp": moment}, separators=(",", ":")).encode() + b"\n"
