"""``make quickstart-clean``: removes what quickstart made on this machine, and only it.

What it removes, it finds by Perry's labels, or in its own notes. Workspaces besides the quickstart's are somebody's work:
they are named, and nothing is removed unless FORCE=1 says so.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ensure
from ensure import BUILD, CHECKOUT, DOCKERD_PID, Trouble, notes, say, sudo
from quickstart import PERRY, WORKSPACE

LABEL = "label=perry.instance=perry"
IMAGES = ("device", "headscale", "sidecar", "workspace-base", "base")
MADE_BY_THE_AGENT = ("agent.log", "lock", "token", "state.db", "state.db-wal", "state.db-shm")
FOLDERS_OF_THE_AGENT = ("coordinator", "ssh", "uploads", "run")


def main() -> int:
    try:
        clean()
    except Trouble as exc:
        print(f"Stopped: {exc}", file=sys.stderr)
        return 1
    return 0


def clean() -> None:
    if ensure.docker_answers():
        refuse_to_lose_work()
        stop_agent()
        remove_docker_objects()
    else:
        say("Docker does not answer, so there is nothing of Perry's that runs.")
        stop_agent()
    remove_files()
    undo_installation()
    say("All of it is gone.")


def docker(*words: str) -> list[str]:
    """The output's lines; none where it fails."""
    program = shutil.which("docker")
    if program is None:
        raise Trouble("The docker command is missing, so what Perry made cannot be found; install docker-cli.")
    return subprocess.run([program, *words], capture_output=True, text=True, check=False).stdout.splitlines()


def refuse_to_lose_work() -> None:
    named = docker("volume", "ls", "--filter", LABEL, "--format", '{{.Label "perry.workspace"}}')
    others = sorted({name for name in named if name} - {WORKSPACE})
    if others and os.environ.get("FORCE") != "1":
        raise Trouble(
            f"there are workspaces besides {WORKSPACE}: {', '.join(others)}. Save what you need and `perry delete` "
            "them, or run `make quickstart-clean FORCE=1` to remove them with all that is in them."
        )


def stop_agent() -> None:
    if PERRY.exists():
        subprocess.run([str(PERRY), "agent", "kill"], capture_output=True, check=False, cwd=CHECKOUT, timeout=90)


def remove_docker_objects() -> None:
    if docker("image", "ls", "-q", "perry/sidecar:latest"):
        # The rules that it set on the machine carry the instance's name; it takes away these alone.
        docker("run", "--rm", "--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW",
               "-e", "PERRY_INSTANCE=perry", "perry/sidecar:latest", "host-rules", "--remove")  # fmt: skip
    for container in docker("ps", "-aq", "--filter", LABEL):
        docker("rm", "-f", container)
    for network in docker("network", "ls", "-q", "--filter", LABEL):
        docker("network", "rm", network)
    for volume in docker("volume", "ls", "-q", "--filter", LABEL):
        docker("volume", "rm", "-f", volume)
    for image in IMAGES:
        docker("rmi", f"perry/{image}:latest")
    say("Removed Perry's containers, networks, volumes and images.")


def remove_files() -> None:
    folder = config_folder()
    for name in MADE_BY_THE_AGENT:
        (folder / name).unlink(missing_ok=True)
    for name in FOLDERS_OF_THE_AGENT:
        shutil.rmtree(folder / name, ignore_errors=True)
    if folder.is_dir():
        kept = sorted(path.name for path in folder.iterdir())
        if kept:
            say(f"Kept what is yours in {folder}: {', '.join(kept)}.")
        else:
            folder.rmdir()
    for link in notes().get("links", []):
        place = Path(link)
        if place.is_symlink() and place.resolve() == PERRY.resolve():
            place.unlink()


def config_folder() -> Path:
    explicit = os.environ.get("PERRY_CONFIG_DIR")
    return Path(explicit).expanduser() if explicit else Path.home() / ".config" / "perry"


def undo_installation() -> None:
    packages = notes().get("packages", [])
    stop_docker()
    if packages:
        say(f"Removing what quickstart installed: {', '.join(packages)}.")
        ensure.run(
            [
                *sudo(),
                "env",
                "DEBIAN_FRONTEND=noninteractive",
                "apt-get",
                "purge",
                "-q",
                "-y",
                "--autoremove",
                *packages,
            ],
            "remove packages",
            quiet=True,
        )
        if "docker.io" in packages:
            # Nobody else's: the engine came with quickstart.
            subprocess.run([*sudo(), "rm", "-rf", "/var/lib/docker", "/var/lib/containerd"], check=False)
    shutil.rmtree(CHECKOUT / ".venv", ignore_errors=True)
    # The Go module cache is made read-only, for its own good.
    subprocess.run(["chmod", "-R", "u+w", str(BUILD)], capture_output=True, check=False)
    shutil.rmtree(BUILD, ignore_errors=True)


def stop_docker() -> None:
    """End the engine that quickstart started in the background, and no other."""
    if not DOCKERD_PID.exists():
        return
    process = int(DOCKERD_PID.read_text())
    try:
        if b"dockerd" in Path(f"/proc/{process}/cmdline").read_bytes():
            os.kill(process, signal.SIGTERM)
            deadline = time.monotonic() + 30
            while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
                time.sleep(0.2)
            say("Stopped the Docker Engine that quickstart had started.")
    except (FileNotFoundError, ProcessLookupError):
        pass
    DOCKERD_PID.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
