"""The server: requests in, scripted answers out, and a memory of both."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from . import anthropic, gemini, openai_chat, openai_responses
from .script import Answer, Asked, Fail, Wait, answer
from .wire import Event

KEPT_REQUESTS = 1000
KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key")


class Dialect(NamedTuple):
    """How a provider's requests are read, and answers are written: at once or as events."""

    asked: Callable[[dict[str, Any]], Asked]
    whole: Callable[[Asked, Answer], dict[str, Any]]
    streamed: Callable[[Asked, Answer], Iterator[Event]]


ANTHROPIC = Dialect(anthropic.asked, anthropic.whole, anthropic.streamed)
CHAT = Dialect(openai_chat.asked, openai_chat.whole, openai_chat.streamed)
RESPONSES = Dialect(openai_responses.asked, openai_responses.whole, openai_responses.streamed)
GEMINI = Dialect(gemini.asked, gemini.whole, gemini.streamed)


class Refusal(NamedTuple):
    status: int
    message: str


class ModelServer:
    """Listens from ``start`` to ``stop`` on a port of ``host`` (any free one, without ``port``).

    ``scripts`` maps regular expressions to what is done for prompts that match and have no script of their own.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, scripts: Mapping[str, str] | None = None) -> None:
        self.scripts = dict(scripts or {})
        self._host = host
        self._requests: list[dict[str, Any]] = []
        self._failed: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._http = ThreadingHTTPServer((host, port), _handler(self))
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        """Base address, without a path."""
        return f"http://{self._host}:{self.port}"

    def requests(self) -> list[dict[str, Any]]:
        """What it was asked, in order: ``path``, ``key``, ``prompt``, ``answered``, ``tools``, ``body``.

        ``key`` is what the caller proved itself with, without the word before it; ``answered`` counts tools' results.
        """
        with self._lock:
            return list(self._requests)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._http.shutdown()
        self._http.server_close()

    def wait(self, seconds: float) -> None:
        """A silence, which the server's end ends too."""
        self._stopped.wait(seconds)

    def __enter__(self) -> "ModelServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def decide(self, path: str, key: str, question: Asked, body: dict[str, Any]) -> Answer | Refusal:
        """What to answer, now that this was asked."""
        entry = {
            "at": time.time(),
            "path": path,
            "key": key,
            "prompt": question.prompt,
            "answered": question.answered,
            "tools": sorted(question.tools),
            "body": body,
        }
        with self._lock:
            self._requests.append(entry)
            del self._requests[:-KEPT_REQUESTS]
        try:
            parts = answer(question, self.scripts)
        except ValueError as exc:
            return Refusal(400, str(exc))
        for part in parts:
            if isinstance(part, Fail):
                with self._lock:
                    self._failed[question.prompt] += 1
                    if part.times is None or self._failed[question.prompt] <= part.times:
                        return Refusal(part.status, f"It was told to fail with {part.status}.")
        return [part for part in parts if not isinstance(part, Fail)]


def _handler(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == "/requests":
                self._json(200, server.requests())
            elif path.endswith("/models"):
                self._json(200, {"object": "list", "data": [{"id": "fake-1", "object": "model"}], "models": []})
            else:
                self._json(200, {})

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                body = json.loads(raw or b"{}")
            except ValueError:
                self._json(400, {"error": {"type": "invalid_request_error", "message": "That is no JSON."}})
                return
            url = urlsplit(self.path)
            if url.path == "/scripts":
                server.scripts.update(body)
                self._json(200, {})
            elif url.path.endswith("/chat/completions"):
                self._answer(CHAT, body)
            elif url.path.endswith("/responses"):
                self._answer(RESPONSES, body)
            elif url.path.endswith("/messages"):
                self._answer(ANTHROPIC, body)
            elif url.path.endswith(("/messages/count_tokens", ":countTokens")):
                self._json(200, {"input_tokens": 10, "totalTokens": 10})
            elif url.path.endswith((":generateContent", ":streamGenerateContent")):
                stream = url.path.endswith(":streamGenerateContent")
                self._answer(GEMINI, body, stream=stream and parse_qs(url.query).get("alt") == ["sse"])
            else:
                self._json(404, {"error": {"type": "not_found_error", "message": f"no {url.path} here"}})

        def _answer(self, dialect: Dialect, body: dict[str, Any], *, stream: bool | None = None) -> None:
            question = dialect.asked(body)
            shown = (self.headers.get(name) for name in KEY_HEADERS)
            key = next((value for value in shown if value), "").removeprefix("Bearer ")
            decided = server.decide(self.path, key, question, body)
            if isinstance(decided, Refusal):
                self._json(
                    decided.status,
                    {"type": "error", "error": {"type": "api_error", "code": "fake", "message": decided.message}},
                )
            elif question.stream if stream is None else stream:
                self._stream(dialect.streamed(question, decided))
            else:
                server.wait(sum(part.seconds for part in decided if isinstance(part, Wait)))
                self._json(200, dialect.whole(question, decided))

        def _stream(self, events: Iterator[Event]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            for event in events:
                if isinstance(event, Wait):
                    self.wfile.flush()
                    server.wait(event.seconds)
                    continue
                name, data = event
                text = data if isinstance(data, str) else json.dumps(data)
                head = f"event: {name}\n" if name else ""
                try:
                    self.wfile.write(f"{head}data: {text}\n\n".encode())
                except OSError:
                    return  # The agent has gone, or was killed.

        def _json(self, status: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: ``/requests`` tells."""

    return Handler
