"""``make quickstart-clean``: removes what quickstart made on this machine, and only it.

What it removes, it finds by the labels of Perry's instance or in the notes of what was installed here. Work that nobody
has elsewhere is not lost without FORCE=1.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bootstrap import engine, packages
from bootstrap.notes import (
    AGENT,
    BUILD,
    CHECKOUT,
    FOLDERS,
    GROUPS,
    IMAGES,
    LINKS,
    MEMBERS,
    PACKAGES,
    PARENTS,
    SERVICES,
    WORKSPACES,
    noted,
)
from bootstrap.perry import PERRY, config_folder, instance, is_link_to_us, perry
from bootstrap.running import Trouble, ends_with_a_sentence, find, output, run, say, sudo

OURS = ("device", "headscale", "sidecar", "workspace-base", "worker", "base")
DATA_OF_DOCKER = ("/var/lib/docker", "/var/lib/containerd")
MADE_BY_THE_AGENT = ("agent.log", "lock", "token", "state.db", "state.db-wal", "state.db-shm")
FOLDERS_OF_THE_AGENT = ("coordinator", "ssh", "uploads", "run")
NOTHING_TO_LEAVE = 7
LOST_WORK = 5
"""Exit code of ``perry delete`` where work would be lost."""


def main() -> None:
    """All of it. Refuses before anything is removed."""
    forced = os.environ.get("FORCE") == "1"
    if engine.state() is not engine.State.ABSENT and shutil.which("docker"):
        refuse_others(forced)
        delete_workspaces(forced)
        leave_tailnet()
        stop_agent()
        remove_from_docker()
    else:
        say("Docker does not answer, so nothing of Perry's runs here.")
        if engine.background_process() is None and noted(WORKSPACES) and "docker.io" not in noted(PACKAGES):
            say("What Perry has in Docker stays; start Docker and run this again to remove it.")
        stop_agent()
    remove_files()
    undo_installation()
    say("All of it is gone.")


def docker(*words: str) -> list[str]:
    """The output's lines; none where it fails."""
    return (output([*engine.docker(), *words], seconds=120) or "").splitlines()


def of_ours(kind: str) -> list[str]:
    """Names or ids of all containers, networks or volumes of the instance."""
    everything = ["ps", "-aq"] if kind == "container" else [kind, "ls", "-q"]
    return docker(*everything, "--filter", f"label=perry.instance={instance()}")


# --- work that could be lost


def refuse_others(forced: bool) -> None:
    """Workspaces that quickstart did not make are somebody's."""
    named = docker("volume", "ls", "--filter", f"label=perry.instance={instance()}",
                   "--format", '{{.Label "perry.workspace"}}')  # fmt: skip
    others = sorted({name for name in named if name} - set(noted(WORKSPACES)))
    if others and not forced:
        raise Trouble(
            f"there are workspaces that quickstart did not make: {', '.join(others)}; save what you need and "
            "`perry delete` them, or run `make quickstart-clean FORCE=1` to lose them and all that is in them."
        )


def delete_workspaces(forced: bool) -> None:
    """Quickstart's own, by the same door as everybody: it is refused where work would be lost."""
    wanted = noted(WORKSPACES) if of_ours("volume") and PERRY.exists() else []
    if wanted and perry("agent", "run", "-d").returncode != 0 and not forced:
        raise Trouble(
            f"the agent does not start, so nobody can tell whether work in {', '.join(wanted)} would be lost; "
            "mend it with `perry doctor`, or run `make quickstart-clean FORCE=1`."
        )
    for name in wanted:
        done = perry("delete", name, *(["--force"] if forced else []))
        if done.returncode == LOST_WORK:
            sys.stderr.write(done.stderr)
            raise Trouble(
                f"nothing was removed; save that work, or run `make quickstart-clean FORCE=1` to lose {name}."
            )


# --- what runs


def leave_tailnet() -> None:
    """On a person's own tailnet the agent's node would stay: only the agent can remove it."""
    if of_ours("volume") and PERRY.exists() and perry("agent", "run", "-d").returncode == 0:
        done = perry("tailnet", "leave")
        if done.returncode not in (0, NOTHING_TO_LEAVE):
            say(f"The agent's node may still be on your tailnet: {done.stderr.strip()}")


def stop_agent() -> None:
    """End the control plane of this configuration folder, where one runs."""
    if PERRY.exists() and perry("agent", "kill").returncode == 0:
        say("The control plane has ended.")


def remove_from_docker() -> None:
    """Everything with the instance's label, its rules, and Perry's images where nothing else uses them."""
    sidecar = "perry/sidecar:latest"
    if engine.has_image(sidecar):
        # The rules that it set on the machine carry the instance's name; it takes away these alone.
        docker("run", "--rm", "--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add",
               "NET_RAW", "-e", f"PERRY_INSTANCE={instance()}", sidecar, "host-rules", "--remove")  # fmt: skip
    for kind in ("container", "network", "volume"):
        for name in of_ours(kind):
            docker(kind, "rm", *(["-f"] if kind != "network" else []), name)
    for image in docker("images", "-q", "--filter", f"label=perry.instance={instance()}"):
        docker("rmi", image)  # Of workspaces that were copies.
    for tag in [*(f"perry/{name}:latest" for name in OURS), "perry/rootfs:trixie", *noted(IMAGES)]:
        docker("rmi", tag)
    # Earlier builds, whose names have gone on to later ones.
    docker("image", "prune", "-f", "--filter", "label=perry.source")
    left = [tag for tag in docker("images", "--format", "{{.Repository}}:{{.Tag}}", "perry/*") if tag]
    say("Removed Perry's containers, networks, volumes and images.")
    if left:
        say(f"Kept, because something else uses them: {', '.join(left)}.")


# --- files


def remove_files() -> None:
    """What the agent wrote, where quickstart was the first to run it; and the link on the PATH."""
    folder = config_folder()
    if str(folder) in noted(AGENT):
        for name in MADE_BY_THE_AGENT:
            (folder / name).unlink(missing_ok=True)
        for name in FOLDERS_OF_THE_AGENT:
            shutil.rmtree(folder / name, ignore_errors=True)
        kept = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        if kept:
            say(f"Kept what is yours in {folder}: {', '.join(kept)}.")
    for place in map(Path, noted(LINKS)):
        if is_link_to_us(place):
            place.unlink()


# --- what was installed


def undo_installation() -> None:
    """The engine that was started, the packages, and everything in ``.build``."""
    if engine.stop_background():
        say("Ended the Docker Engine that quickstart had started.")
    for service in noted(SERVICES):
        subprocess.run([*sudo(), "systemctl", "stop", f"{service}.socket", service], capture_output=True, check=False)
    own_engine = "docker.io" in noted(PACKAGES)
    if own_engine:
        remove_network_of_docker()
    if noted(PACKAGES):
        say(f"Removing {len(noted(PACKAGES))} packages that quickstart installed.")
        stayed = packages.remove_noted()
        if stayed:
            say(f"Kept, because something else needs them: {', '.join(stayed)}.")
        own_engine = own_engine and "docker.io" not in stayed
    for folder in noted(FOLDERS):
        if folder not in DATA_OF_DOCKER:
            shutil.rmtree(folder, ignore_errors=True)
        elif own_engine and Path(folder).is_dir():
            # Its content: the folder itself may be a mount.
            run([*sudo(), "find", folder, "-mindepth", "1", "-delete"], f"empty {folder}")
            subprocess.run([*sudo(), "rmdir", folder], capture_output=True, check=False)
    for person in noted(MEMBERS):
        subprocess.run(
            [*sudo(), find("gpasswd") or "gpasswd", "-d", person, "docker"], capture_output=True, check=False
        )
    for group in noted(GROUPS) if own_engine else []:
        subprocess.run([*sudo(), find("groupdel") or "groupdel", group], capture_output=True, check=False)
    parents = sorted(noted(PARENTS), key=len, reverse=True)
    # Go makes its modules read-only.
    subprocess.run(["chmod", "-R", "u+w", str(BUILD)], capture_output=True, check=False)
    shutil.rmtree(BUILD, ignore_errors=True)
    if BUILD.exists():
        subprocess.run([*sudo(), "rm", "-rf", str(BUILD)], check=False)
    for cache in CHECKOUT.rglob("__pycache__"):
        if ".venv" not in cache.parts:
            shutil.rmtree(cache, ignore_errors=True)
    for parent in parents:
        # Refused where somebody has put something there meanwhile.
        mine = os.access(Path(parent).parent, os.W_OK)
        subprocess.run([*([] if mine else sudo()), "rmdir", parent], capture_output=True, check=False)


def remove_network_of_docker() -> None:
    """The bridge and the chains of an engine that leaves: it removes neither itself."""
    ip, save, restore = find("ip"), find("iptables-save"), find("iptables-restore")
    if ip is not None:
        subprocess.run([*sudo(), ip, "link", "delete", "docker0"], capture_output=True, check=False)
    if save is None or restore is None:
        return
    rules = output([*sudo(), save]) or ""
    without = "".join(line for line in rules.splitlines(keepends=True) if "DOCKER" not in line)
    if "iptables" in noted(PACKAGES):
        # Docker's; without iptables nobody had set another.
        without = without.replace(":FORWARD DROP", ":FORWARD ACCEPT")
    subprocess.run([*sudo(), restore], input=without, text=True, capture_output=True, check=False)


if __name__ == "__main__":
    sys.exit(ends_with_a_sentence(main))
