"""Speaks to a control plane: its procedures over HTTP, uploads, and whether it answers at all.

Built on ``http.client``, because importing it costs a tenth of what a larger HTTP library does, and every command pays
that. Proxies from the environment are not used: a control plane is on this machine or on the tailnet.
"""

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from cli import config
from cli.errors import CliError, Lost, NotAuthorised, NotReachable, NotReady, server_said
from protocol.errors import ErrorCode, WireError
from protocol.health import Health
from protocol.version import API_VERSION, VERSION
from protocol.wire import Wire

T = TypeVar("T")

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 60.0
"""For answers that need no long work. Starts, stops and deletions have no bound."""
CHUNK: Final = 1 << 18
ANSWER_LIMIT: Final = 64 << 20
NO_SUCH_ROUTE: Final = ("There is no POST /rpc/", "There is no WebSocket at ", "There is no GET /")
"""How a control plane begins its answer where it has no such procedure, and not where there is no such workspace."""


class Empty(Wire, frozen=True):
    """The input of a procedure that takes none."""


class _Answer(msgspec.Struct, frozen=True):
    json: msgspec.Raw = msgspec.Raw(b"null")


class Client:
    """One control plane. Raises CliErrors only; each carries a sentence and an exit code."""

    def __init__(self, target: config.Target | None = None, *, token: str | None = None) -> None:
        """``token`` is sent in place of the configured one."""
        self.target = target or config.target()
        self._token = token

    def call(
        self,
        procedure: str,
        output: type[T],
        wanted: Wire | Mapping[str, Any] | None = None,
        *,
        seconds: float | None = READ_SECONDS,
    ) -> T:
        """Call ``group.name`` with an input struct, or its JSON. ``seconds`` None waits as long as it takes."""
        body = b'{"json":' + msgspec.json.encode(wanted or Empty()) + b"}"
        path = "/rpc/" + procedure.replace(".", "/")
        status, answer = self._exchange("POST", path, body, {"Content-Type": "application/json"}, seconds)
        return self._decoded(status, answer, output)

    def get(self, path: str, *, seconds: float = CONNECT_SECONDS) -> tuple[int, bytes]:
        """A plain GET (``/health`` needs no token, ``/ready`` does): status and body."""
        return self._exchange("GET", path, None, {}, seconds, authorised=path != "/health")

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """A plain POST: status and body."""
        return self._exchange("POST", path, body, headers, READ_SECONDS)

    def answers(self) -> bool:
        """Whether a control plane is alive there."""
        try:
            return self.get("/health", seconds=2)[0] == 200
        except NotReachable:
            return False

    def check_version(self) -> None:
        """Before what cannot be taken back: NotReady where the control plane would misunderstand this program."""
        try:
            other = self._health()
        except msgspec.DecodeError as exc:
            raise self._not_understood("its health cannot be read") from exc
        if other.api_version != API_VERSION:
            raise self._other_version(other)

    def upload(self, upload_id: str, file: Path, progress: Callable[[int, int], None]) -> None:
        """Send a file to ``/uploads/<id>``. ``progress`` is told how many bytes of how many are sent."""
        total = file.stat().st_size
        sent = 0
        with file.open("rb") as source:

            def chunks() -> Any:
                nonlocal sent
                while chunk := source.read(CHUNK):
                    yield chunk
                    sent += len(chunk)
                    progress(sent, total)

            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(total)}
            status, answer = self._exchange("PUT", f"/uploads/{upload_id}", chunks(), headers, READ_SECONDS)
        if status >= 300:
            raise self.refusal(status, answer)

    def lines(self, path: str, *, seconds: float) -> Iterator[bytes]:
        """The lines of an answer that goes on for ever, as they come. Lost where nothing came for ``seconds``."""
        connection = self._connected()
        try:
            connection.request("GET", self.target.path + path, headers=self.headers())
            response = connection.getresponse()
            if response.status >= 300:
                raise self.refusal(response.status, response.read(ANSWER_LIMIT))
            if connection.sock is not None:
                connection.sock.settimeout(seconds)
            while line := response.readline():
                yield line
        except (OSError, http.client.HTTPException) as exc:
            raise Lost(f"The connection to the agent at {self.target.url} broke ({_reason(exc)}).") from exc
        finally:
            connection.close()

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        token = self._token or config.token(self.target)
        return {"User-Agent": f"perry/{VERSION}"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def unreachable(self, reason: object = None) -> NotReachable:
        """The sentence for a control plane that does not answer."""
        if self.target.source == "default":
            return NotReachable(
                f"No Perry agent answers at {self.target.url}; start one with `perry agent run`, "
                "or name another's with `perry config worker HOST`."
            )
        if isinstance(reason, BaseException):
            reason = _reason(reason)
        why = f" ({reason})" if reason else ""
        return NotReachable(
            f"No Perry agent answers at {self.target.url}{why}, which {self.target.source} names; "
            "start it there with `perry agent run`, or name another."
        )

    # --- one exchange

    def _exchange(
        self,
        method: str,
        path: str,
        body: Any,
        headers: dict[str, str],
        seconds: float | None,
        *,
        authorised: bool = True,
    ) -> tuple[int, bytes]:
        if authorised:
            headers = self.headers() | headers
        connection = self._connected()
        try:
            if connection.sock is not None:
                connection.sock.settimeout(seconds)
            try:
                connection.request(method, self.target.path + path, body, headers)
            except (BrokenPipeError, ConnectionResetError):
                # A server that refuses a body answers before it has read it all.
                if method != "PUT":
                    raise
            response = connection.getresponse()
            content = response.read(ANSWER_LIMIT)
            if response.length and len(content) < ANSWER_LIMIT:
                # An agent that was killed while it answered; nobody else notices.
                raise http.client.IncompleteRead(content, response.length)
            return response.status, content
        except TimeoutError as exc:
            raise Lost(
                f"The agent at {self.target.url} took longer than {seconds:g} s to answer; try again, "
                "and look into `perry agent logs` on its machine."
            ) from exc
        except (OSError, http.client.HTTPException) as exc:
            raise Lost(
                f"The connection to the agent at {self.target.url} broke ({_reason(exc)}); "
                "what was asked for may have happened: look with `perry list`."
            ) from exc
        finally:
            connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.target.secure else http.client.HTTPConnection
        connection = kind(self.target.host, self.target.port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
        except ssl.SSLError as exc:
            raise NotReachable(
                f"{self.target.url} has no certificate that is trusted here ({_reason(exc)}); "
                "trust its authority on this device, or mend the address."
            ) from exc
        except OSError as exc:
            raise self.unreachable(_reason(exc)) from exc
        return connection

    # --- what came back

    def _decoded(self, status: int, answer: bytes, output: type[T]) -> T:
        if status >= 300:
            raise self.refusal(status, answer)
        try:
            return msgspec.json.decode(msgspec.json.decode(answer, type=_Answer).json, type=output)
        except msgspec.DecodeError as exc:
            raise self._not_understood(f"its answer cannot be read: {exc}") from exc

    def refusal(self, status: int, answer: bytes) -> CliError:
        """What an answer that is no success says."""
        try:
            error = msgspec.json.decode(msgspec.json.decode(answer, type=_Answer).json, type=WireError)
        except msgspec.DecodeError:
            return self._not_understood(f"it says HTTP {status}")
        if error.code == ErrorCode.NOT_FOUND and error.message.startswith(NO_SUCH_ROUTE):
            return self._not_understood("it has no such procedure")
        if status == 401 and config.token(self.target) is None:
            return NotAuthorised(
                f"The agent at {self.target.url} wants a token; `perry agent token` on its machine prints it, "
                "give it in PERRY_TOKEN.",
                code=error.code,
            )
        return server_said(error)

    def _not_understood(self, why: str) -> CliError:
        """For what is no control plane, or one of another age."""
        try:
            other = self._health()
        except (msgspec.DecodeError, NotReachable):
            return CliError(f"What answers at {self.target.url} is no Perry agent ({why}); check the address and port.")
        if other.version == VERSION:
            return CliError(f"The agent at {self.target.url} answered what this perry does not understand: {why}.")
        return self._other_version(other)

    def _other_version(self, other: Health) -> NotReady:
        older = _number(other.version) < _number(VERSION)
        return NotReady(
            f"The agent at {self.target.url} is version {other.version} (API {other.api_version}), "
            f"{'older' if older else 'newer'} than this perry, which is {VERSION} (API {API_VERSION}), and they do not "
            f"understand each other in this; update {'the agent' if older else 'perry here'}, or install the same "
            "version on both."
        )

    def _health(self) -> Health:
        return msgspec.json.decode(self.get("/health")[1], type=Health)


def _reason(exc: BaseException) -> str:
    if isinstance(exc, socket.gaierror):
        return "its name does not resolve"
    if isinstance(exc, TimeoutError):
        return "it does not answer in time"
    if isinstance(exc, http.client.IncompleteRead):
        return "it ended in the middle of an answer"
    if isinstance(exc, http.client.BadStatusLine) and not isinstance(exc, http.client.RemoteDisconnected):
        return "what answers there is no Perry agent"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return exc.verify_message
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return str(exc) or type(exc).__name__


def _number(version: str) -> list[int]:
    """A version as it is compared; what is no number counts as 0."""
    return [int(part) if part.isascii() and part.isdigit() else 0 for part in version.split(".")]
