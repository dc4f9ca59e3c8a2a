"""``make quickstart``: from a bare machine to a workspace that answers on the tailnet, and the proof of it.

Each step looks first whether it is done already, so that a second run takes seconds and changes nothing.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ensure
from ensure import BIN, CHECKOUT, Trouble, note, say

PERRY = CHECKOUT / ".venv" / "bin" / "perry"
PYTHON = CHECKOUT / ".venv" / "bin" / "python"
WORKSPACE = "hello"
DEVICE = "perry-device-quickstart"
DEVICE_NAME = "quickstart-device"
DEVICE_SECONDS = 60


def main() -> int:
    try:
        quickstart()
    except Trouble as exc:
        print(f"Stopped: {exc}", file=sys.stderr)
        return 1
    return 0


def quickstart() -> None:
    step("What is needed")
    ensure.ensure(tests=False)
    environment()
    step("Perry's own programs")
    command(["uv", "sync", "--frozen", "--no-dev", "--inexact", "-q"], "install Perry's Python packages")
    step("Images")
    command([str(PYTHON), "-P", "-m", "controlplane", "build"], "build the images")
    step("The control plane, with a tailnet of its own")
    command([str(PERRY), "agent", "run", "-d"], "start the control plane")
    step(f"A workspace: perry start {WORKSPACE} --clone .")
    command([str(PERRY), "start", WORKSPACE, *clone()], f"start the workspace {WORKSPACE}")
    step("A second device on the tailnet")
    join_device()
    step(f"ssh workspace@{WORKSPACE}, from that device")
    show_ssh()
    step("perry on the PATH")
    word = link()
    say(
        f"""{word}

Perry runs. Try next:
  perry list
  perry ssh {WORKSPACE}
  perry start another --clone https://…        (or a path)
  perry tailnet join                         (the command with which your laptop joins)
  perry doctor
`make quickstart-clean` removes all of it."""
    )


def clone() -> list[str]:
    """``--clone .``, where this folder is a repository that can travel."""
    git = ["git", "-C", str(CHECKOUT), "rev-parse", "--is-shallow-repository"]
    said = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    if said == "false":
        return ["--clone", "."]
    say(
        "This folder is no full clone, so the workspace starts without a repository (`git fetch --unshallow` mends it)."
    )
    return []


def step(title: str) -> None:
    say(f"\n== {title}")


def environment() -> None:
    """What the following programs find: this checkout's tools first, and no Python but the system's."""
    os.environ["PATH"] = f"{BIN}:{os.environ.get('PATH', '')}:/usr/local/go/bin:/usr/sbin:/sbin"
    os.environ["UV_PYTHON_DOWNLOADS"] = "never"
    os.environ["UV_PYTHON"] = sys.executable


def command(words: list[str], what: str) -> None:
    """Run with its output shown; Trouble where it fails."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, check=False, cwd=CHECKOUT)
    if done.returncode != 0:
        raise Trouble(f"could not {what} (exit code {done.returncode}); what was said above is the reason.")


def perry_json(*words: str) -> Any:
    done = subprocess.run([str(PERRY), *words, "--json"], capture_output=True, text=True, check=False, cwd=CHECKOUT)
    if done.returncode != 0:
        raise Trouble(f"perry {shlex.join(words)} failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


# --- the device


def join_device() -> None:
    """A container with the stock tailscale client, enrolled as a device of the owner."""
    if device("tailscale", "ip", "-4", check=False)[0] == 0:
        say("It is there already.")
        return
    docker(["rm", "-f", DEVICE], check=False)
    joining = perry_json("tailnet", "join")
    settings = [part for name, value in joining["environment"].items() for part in ("-e", f"{name}={value}")]
    docker(
        ["run", "-d", "--name", DEVICE, "--hostname", DEVICE_NAME, "--label", "perry.instance=perry",
         "--label", "perry.role=device", "--cap-add", "NET_ADMIN", "--device", "/dev/net/tun",
         "--restart", "unless-stopped", *settings, "perry/device:latest"],
    )  # fmt: skip
    up = ["tailscale", "up", "--login-server", joining["controlUrl"], "--auth-key", "file:/dev/stdin"]
    say(f"It joins with: {shlex.join(up)}")
    deadline = time.monotonic() + DEVICE_SECONDS
    while device("test", "-S", "/run/tailscale/tailscaled.sock", check=False)[0] != 0:
        if time.monotonic() > deadline:
            raise Trouble(f"tailscaled did not start in {DEVICE}; `docker logs {DEVICE}` may say why.")
        time.sleep(0.2)
    device(*up, "--hostname", DEVICE_NAME, stdin=joining["key"])


def show_ssh() -> None:
    """The proof: no key, no password, no question, a known host."""
    keys = perry_json("info", WORKSPACE)["sshHostKeys"]
    lines = "".join(f"{WORKSPACE} {key}\n" for key in keys)
    device("sh", "-c", "mkdir -p ~/.ssh && cat > ~/.ssh/known_hosts", stdin=lines)
    proof = 'echo "I am $(id -un) on $(hostname), with $(git -C ~/$(hostname) rev-list --count HEAD) commits"'
    deadline = time.monotonic() + DEVICE_SECONDS
    while True:
        code, said = device("ssh", "-o", "BatchMode=yes", f"workspace@{WORKSPACE}", proof, check=False)
        if code == 0:
            say(f"$ ssh workspace@{WORKSPACE}\n{said.strip()}")
            return
        if time.monotonic() > deadline:
            raise Trouble(f"ssh did not answer: {said.strip()[-500:]}")
        time.sleep(0.5)


def docker(words: list[str], *, check: bool = True, stdin: str | None = None) -> tuple[int, str]:
    program = shutil.which("docker")
    if program is None:
        raise Trouble("The docker command is missing; install docker-cli.")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False, input=stdin, timeout=120)
    if check and done.returncode != 0:
        raise Trouble(f"docker {words[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.returncode, done.stdout + done.stderr


def device(*words: str, check: bool = True, stdin: str | None = None) -> tuple[int, str]:
    interactive = ["-i"] if stdin is not None else []
    return docker(["exec", *interactive, DEVICE, *words], check=check, stdin=stdin)


# --- the PATH


def link() -> str:
    """Put perry where the shell finds it, without ever taking the place of something else."""
    for folder in (Path("/usr/local/bin"), Path.home() / ".local" / "bin"):
        place = folder / "perry"
        if place.is_symlink() and place.resolve() == PERRY.resolve():
            return f"{place} is there already."
        on_path = str(folder) in os.environ["PATH"].split(":")
        if folder.is_dir() and os.access(folder, os.W_OK) and on_path and not place.is_symlink() and not place.exists():
            place.symlink_to(PERRY)
            note(links=[str(place)])
            return f"perry is {place}."
    return f'Put this into your shell\'s profile: export PATH="{PERRY.parent}:$PATH"'


if __name__ == "__main__":
    sys.exit(main())
