"""The server: a proxy for https that is GitHub itself."""

import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from . import git_server, rest_api
from .graphql_api import Api, schema
from .repositories import Repository
from .rest_api import Reply

API = "api.github.com"
WEB = "github.com"


class GitHub:
    """Listens on ``host`` from entering to leaving. ``viewer`` is whoever has ``token``; nobody else gets in.

    ``folder`` takes the repositories and the certificate, which is to be trusted: ``certificate``.
    """

    def __init__(self, folder: Path, host: str, *, token: str, viewer: str) -> None:
        self.token = token
        self.viewer = viewer
        self.root = folder / "repositories"
        self.certificate = folder / "github.pem"
        self.repositories: dict[str, Repository] = {}
        self.api = Api(viewer, self.repositories)
        self.asked: list[str] = []
        """What the API was asked: ``POST /graphql PullRequestCreate`` and the like."""
        self.unanswered: list[str] = []
        """What GitHub answers, and the stand-in does not."""
        self.refused: list[str] = []
        """Servers that somebody asked the proxy for, besides GitHub."""
        self.lock = threading.Lock()
        key = folder / "github.key"
        _make_certificate(self.certificate, key)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.certificate, key)
        self._http = ThreadingHTTPServer((host, 0), _handler(self))
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def proxy(self) -> str:
        """What HTTPS_PROXY has to be."""
        return f"http://{self._http.server_address[0]!s}:{self._http.server_address[1]}"

    def repository(self, owner: str, name: str, *, parent: Repository | None = None) -> Repository:
        """A new one: empty, or a fork."""
        made = Repository(self.root, owner, name, parent=parent)
        self.repositories[made.full_name.lower()] = made
        return made

    def __enter__(self) -> "GitHub":
        schema()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()


def _make_certificate(certificate: Path, key: Path) -> None:
    names = f"subjectAltName=DNS:{WEB},DNS:{API}"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={WEB}", "-addext", names, "-keyout", str(key), "-out", str(certificate)],
        capture_output=True, check=True,
    )  # fmt: skip


def _handler(github: GitHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        host = ""

        def do_CONNECT(self) -> None:
            """From here on the client speaks TLS, with GitHub as it thinks."""
            self.host, _, port = self.path.partition(":")
            if self.host not in (WEB, API) or port != "443":
                with github.lock:
                    github.refused.append(self.path)
                self._answer(Reply(403, {"message": "This proxy leads to GitHub alone."}))
                return
            self.send_response(200)
            self.end_headers()
            try:
                self.connection = github.tls.wrap_socket(self.connection, server_side=True)
            except OSError:  # Who does not trust the certificate hangs up.
                self.close_connection = True
                return
            self.rfile = self.connection.makefile("rb")
            self.wfile = self.connection.makefile("wb", 0)
            self.close_connection = False

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if self.host == WEB:
                self._git(b"")
            elif self._may():
                with github.lock:
                    reply = rest_api.answer(url.path, self.headers.get("Accept", ""), github.repositories)
                self._note(f"GET {url.path}", reply.status == 404)
                self._answer(reply)

        def do_POST(self) -> None:
            body = self._body()
            if self.host == WEB:
                self._git(body)
            elif self._may():
                if self.path != "/graphql":
                    self._note(f"POST {self.path}", True)
                    self._answer(rest_api.NOT_FOUND)
                    return
                asked = json.loads(body)
                with github.lock:
                    reply = github.api.answer(asked["query"], asked.get("variables") or {})
                operation = asked["query"].split("(")[0].split("{")[0].split()[-1]
                unknown = [error["message"] for error in reply.get("errors", []) if "stand-in" in error["message"]]
                self._note(f"POST /graphql {operation}{''.join(f' {each}' for each in unknown)}", bool(unknown))
                self._answer(Reply(200, reply))

        def _may(self) -> bool:
            """Whether the token is right: https://docs.github.com/en/rest/authentication."""
            if self.headers.get("Authorization", "").split()[-1:] == [github.token]:
                return True
            self._answer(rest_api.BAD_CREDENTIALS)
            return False

        def _git(self, body: bytes) -> None:
            if git_server.password(dict(self.headers.items())) != github.token:
                # What is private is asked for, and a wrong token is no token.
                headers = {"WWW-Authenticate": 'Basic realm="GitHub"', "Content-Type": "text/plain"}
                self._answer(Reply(401, "Repository not found.", headers))
                return
            url = urlsplit(self.path)
            headers = dict(self.headers.items())
            reply = git_server.serve(
                github.root, self.command, url.path, url.query, headers, body, github.viewer
            )  # fmt: skip
            self._send(reply.status, dict(reply.headers), reply.body)

        def _note(self, what: str, unanswered: bool) -> None:
            with github.lock:
                github.asked.append(what)
                if unanswered:
                    github.unanswered.append(what)

        def _answer(self, reply: Reply) -> None:
            text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
            kind = {"Content-Type": "application/json; charset=utf-8"}
            self._send(reply.status, kind | dict(reply.headers), text.encode())

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            whole = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole

        def finish(self) -> None:
            super().finish()
            self.connection.close()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: ``asked`` tells."""

    return Handler
