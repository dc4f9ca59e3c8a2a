"""Stand-ins on Docker's bridge for what work needs: a git server, a model, GitHub's API."""

import contextlib
import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e.system import System, docker, eventually, free_port

REPLY = "Perry says hello from the fake model"
REPOSITORY = "/home/workspace/private.git"

GIT_SERVER = f"""
set -eu
mkdir -p /etc/perry /home/workspace/.perry/sshd /run/sshd
cat >/etc/perry/authorized_keys
ssh-keygen -q -t ed25519 -N '' -f /home/workspace/.perry/sshd/ssh_host_ed25519_key
git init -q --bare {REPOSITORY}
git clone -q {REPOSITORY} /tmp/seed
cd /tmp/seed
echo precious >README
git add README
git -c user.name=seed -c user.email=seed@example.com commit -qm seed
git push -q
chown -R workspace: {REPOSITORY}
exec /usr/sbin/sshd -D -e -p "$1" -o ListenAddress="$2"
"""


def bridge() -> str:
    """This machine's address on Docker's default bridge: every container reaches it."""
    return docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")


def _events(*events: tuple[str, Any]) -> bytes:
    return b"".join(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in events)


def anthropic() -> bytes:
    message: dict[str, Any] = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "fake-1", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    text = {"type": "text_delta", "text": REPLY}
    return _events(
        ("message_start", {"type": "message_start", "message": message}),
        ("content_block_start",
         {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        ("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": text}),
        ("content_block_stop", {"type": "content_block_stop", "index": 0}),
        ("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                           "usage": {"output_tokens": 5}}),
        ("message_stop", {"type": "message_stop"}),
    )  # fmt: skip


def openai() -> bytes:
    chunks: list[dict[str, Any]] = [{"role": "assistant", "content": REPLY}, {}]
    lines = [
        {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "fake-1",
         "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]}
        for delta in chunks
    ]  # fmt: skip
    return b"".join(f"data: {json.dumps(line)}\n\n".encode() for line in lines) + b"data: [DONE]\n\n"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    keys: set[str]

    def do_GET(self) -> None:
        self._answer(b"{}", "application/json")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for header in ("x-api-key", "authorization"):
            if value := self.headers.get(header):
                self.keys.add(value)
        if "graphql" in self.path:
            self._answer(b'{"data": {"viewer": {"login": "octocat"}}}', "application/json")
        elif "count_tokens" in self.path:
            self._answer(b'{"input_tokens": 1}', "application/json")
        else:
            self._answer(anthropic() if "messages" in self.path else openai(), "text/event-stream")

    def _answer(self, body: bytes, kind: str) -> None:
        if value := self.headers.get("authorization"):
            self.keys.add(value)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-OAuth-Scopes", "repo, read:org, gist")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def served(certificate: Path | None = None) -> Iterator[tuple[str, set[str]]]:
    """A server on Docker's bridge (host:port, and what keys it was shown); https where it has a certificate."""
    keys: set[str] = set()
    handler = type("Bound", (Handler,), {"keys": keys})
    server = http.server.ThreadingHTTPServer((bridge(), 0), handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{bridge()}:{server.server_address[1]}", keys
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certificate(folder: Path) -> Path:
    """A self-signed one for the bridge's address, with its key, in one file."""
    file = folder / "stand-in.pem"
    done = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=stand-in", "-addext", f"subjectAltName=IP:{bridge()}",
         "-keyout", str(folder / "key"), "-out", str(folder / "cert")],
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file.write_bytes((folder / "cert").read_bytes() + (folder / "key").read_bytes())
    return file


def git_server(system: System, public_key: str) -> tuple[str, str]:
    """The repository's URL and its line of known_hosts. The server goes with the system."""
    address, port, container = bridge(), free_port(), f"{system.instance}-git"
    docker(
        "run", "-d", "--name", container, "--label", f"perry.instance={system.instance}", "--network", "host",
        "-e", f"KEY={public_key}", "--entrypoint", "sh", "perry/workspace-base:latest",
        "-c", 'echo "$KEY" | sh -c "$0" git-server "$@"', GIT_SERVER, str(port), address,
    )  # fmt: skip
    key = "/home/workspace/.perry/sshd/ssh_host_ed25519_key.pub"
    eventually(lambda: "Server listening" in logs(container), "the git server listens")
    kind, blob, *_ = docker("exec", container, "cat", key).split()
    return f"ssh://workspace@{address}:{port}{REPOSITORY}", f"[{address}]:{port} {kind} {blob}"


def logs(container: str) -> str:
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
    return done.stdout + done.stderr
