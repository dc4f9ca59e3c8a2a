"""Stand-ins on Docker's bridge for what work needs: a git server, GitHub's API; the model is fakes/model_server."""

import contextlib
import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e.system import System, docker, eventually, free_port

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


class GitHub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b"{}", "application/json")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(b'{"data": {"viewer": {"login": "octocat"}}}', "application/json")

    def _answer(self, body: bytes, kind: str) -> None:
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
def github(certificate: Path) -> Iterator[str]:
    """A server on Docker's bridge (host:port), by https."""
    server = http.server.ThreadingHTTPServer((bridge(), 0), GitHub)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{bridge()}:{server.server_address[1]}"
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
