"""Prints the messages of a session, as a transcript or as JSON."""

from typing import Final

from cli import output
from cli.sessions import shown, transcript
from protocol.sessions import Message, SessionInfo

LEAST_COLUMNS: Final = 40


class Show:
    """Prints messages of a session."""

    def __init__(self, session: SessionInfo, *, full: bool, as_json: bool, now: bool = False) -> None:
        """``now``: each line at once, also into a pipe."""
        self.session = session
        self._now = now
        self._full = full
        self._as_json = as_json
        columns = output.width()
        self._columns = None if columns is None else max(columns, LEAST_COLUMNS)

    def head(self) -> None:
        """What session it is."""
        if self._as_json:
            return
        facts = (
            self.session.workspace,
            self.session.agent,
            shown.state(self.session),
            shown.count(self.session.message_count, "message"),
            self.session.cwd or "",
        )
        output.line(output.styled(output.cut(shown.title(self.session), self._columns), "bold"))
        text = output.clean(" · ".join(each for each in facts if each))
        output.line(output.styled(output.cut(text, self._columns), "dim"))

    def __call__(self, message: Message) -> None:
        if self._as_json:
            output.data_line(message)
            return
        for line in transcript.lines(message, self.session.agent, full=self._full, columns=self._columns):
            output.line(line, now=self._now)

    def more(self, message: Message, blocks: Message) -> None:
        """A message that was shown has got more blocks: those."""
        if self._as_json:
            output.data_line(message)
            return
        for block in blocks.blocks:
            for line in transcript.block_lines(block, full=self._full, columns=self._columns):
                output.line(line, now=self._now)

    def foot(self, earlier: int | None, later: int | None) -> None:
        """How to see more."""
        if self._as_json:
            return
        hints = [
            f"--{how} {ordinal} shows {what} ones"
            for how, ordinal, what in (("before", earlier, "earlier"), ("after", later, "later"))
            if ordinal is not None
        ]
        if hints:
            output.note(f"\nThere are more messages; {', '.join(hints)}.")
        elif self.session.message_count == 0:
            output.note("Nothing was said in it yet.")
