"""Logs as JSON, one object a line, and a belt against secrets in them.

No part of the program logs a secret. The belt is for what nobody thought of: a traceback, a library's debug line.
"""

import contextvars
import logging
import re
import sys
from datetime import UTC, datetime
from typing import IO, Any, Final

import msgspec

request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)
"""The request that is being served; what it starts in the background keeps it."""

REDACTED: Final = "***"

_SECRETS = re.compile(
    r"""
      (?P<word> \b[Bb]earer[ ]+ | \b[Bb]asic[ ]+ )                           [A-Za-z0-9+/=._~-]{8,}
    | (?P<key>  ["']?(?:token|secret|password|auth_?key|api_?key)["']?\s*[:=]\s*["'] ) [^"'\s]{6,}
    | (?P<url>  ://[^\s/:@]*: )                                              [^\s/@]+ (?=@)
    | \b(?:hskey|tskey)-[A-Za-z0-9_-]{8,}
    | \b(?:gh[pousr]|github_pat|glpat|sk)[_-][A-Za-z0-9_-]{16,}
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----[\s\S]*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|$)
    | (?<![A-Za-z0-9_-]) (?=[A-Za-z0-9_-]*[A-Z]) (?=[A-Za-z0-9_-]*[a-z]) (?=[A-Za-z0-9_-]*[0-9])
      [A-Za-z0-9_-]{43} (?![A-Za-z0-9_-])
    """,
    re.VERBOSE,
)


def redacted(text: str) -> str:
    """The text with everything that looks like a secret replaced."""
    return _SECRETS.sub(_kept, text)


def _kept(match: re.Match[str]) -> str:
    return (match["word"] or match["key"] or match["url"] or "") + REDACTED


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON. ``extra={"fields": {…}}`` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        if (current := request_id.get()) is not None:
            line["requestId"] = current
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update({key: redacted(v) if isinstance(v, str) else v for key, v in fields.items()})
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        return msgspec.json.encode(line, enc_hook=str).decode()


def configure(level: str, stream: IO[str] | None = None) -> None:
    """Send the logs of this process to ``stream`` (stderr), from ``level`` up. Libraries speak from warning up."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("controlplane").setLevel(level.upper())
    # asyncio's and uvicorn's own words are for their developers, down to the paths of WebSockets.
    for library in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(library)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
