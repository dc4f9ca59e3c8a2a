"""The second device on the tailnet: a container with the stock tailscale client, enrolled as one of the owner's."""

import shlex
import subprocess
import time

from bootstrap import engine
from bootstrap.perry import instance, perry_json
from bootstrap.running import Trouble, say

NAME = "quickstart-device"
SECONDS = 60


def container() -> str:
    """The container's name."""
    return f"{instance()}-{NAME}"


def join() -> None:
    """Make it and let it join, as a person would with what ``perry tailnet join`` says."""
    if run("tailscale", "status", "--peers=false", check=False)[0] == 0:
        say(f"{NAME} is on the tailnet already.")
        return
    docker("rm", "-f", container(), check=False)
    joining = perry_json("tailnet", "join")
    variables = [part for name, value in joining["environment"].items() for part in ("-e", f"{name}={value}")]
    docker(
        "run", "-d", "--name", container(), "--hostname", NAME, "--label", f"perry.instance={instance()}",
        "--label", "perry.role=device", "--cap-add", "NET_ADMIN", "--device", "/dev/net/tun",
        "--restart", "unless-stopped", *variables, "perry/device:latest",
    )  # fmt: skip
    deadline = time.monotonic() + SECONDS
    while run("test", "-S", "/run/tailscale/tailscaled.sock", check=False)[0] != 0:
        if time.monotonic() > deadline:
            raise Trouble(f"tailscaled did not start in {container()}; `docker logs {container()}` may say why.")
        time.sleep(0.1)
    # The key comes by standard input: never in an argument or a variable, where `docker inspect` and `ps` show it.
    up = ["tailscale", "up", "--login-server", joining["controlUrl"], "--auth-key", "file:/dev/stdin"]
    say(f"{NAME} joins with: {shlex.join(up)}")
    run(*up, "--hostname", NAME, stdin=joining["key"])


def knows(workspace: str, host_keys: list[str]) -> None:
    """Its known_hosts has these keys for the workspace."""
    lines = "".join(f"{workspace} {key}\n" for key in host_keys)
    run("sh", "-c", "mkdir -p -m 700 ~/.ssh && cat > ~/.ssh/known_hosts", stdin=lines)


def run(*words: str, check: bool = True, stdin: str | None = None) -> tuple[int, str]:
    """Exit code and output of a command in the device."""
    interactive = ["-i"] if stdin is not None else []
    return docker("exec", *interactive, container(), *words, check=check, stdin=stdin)


def docker(*words: str, check: bool = True, stdin: str | None = None) -> tuple[int, str]:
    """Exit code and output of a docker command."""
    done = subprocess.run(
        [*engine.docker(), *words], capture_output=True, text=True, errors="replace", check=False,
        input=stdin or "", timeout=120,
    )  # fmt: skip
    if check and done.returncode != 0:
        raise Trouble(f"docker {words[0]} failed ({(done.stderr or done.stdout).strip()[-300:]}); mend that.")
    return done.returncode, done.stdout + done.stderr
