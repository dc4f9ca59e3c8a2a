"""Brings this machine to where Perry can be built and tested: names what is missing, installs that, and nothing else.

``python3 -m bootstrap.ensure PART…``, with the parts ``python`` (to run our Python programs), ``go`` (to build our
Go programs), ``engine`` (a Docker Engine and what images are made with) and ``tests`` (what the tests need besides).
"""

import getpass
import grp
import os
import shutil
import subprocess
import sys
from enum import StrEnum
from pathlib import Path

from bootstrap import engine, packages, tools
from bootstrap.notes import FOLDERS, GROUPS, IMAGES, PARENTS, note
from bootstrap.running import Trouble, ends_with_a_sentence, find, output, say, sudo

DOCKER_DATA = Path("/var/lib/docker")
CONTAINERD_DATA = Path("/var/lib/containerd")
MADE_BY_DOCKER = (Path("/opt/containerd"), Path("/etc/docker"))
TUN = Path("/dev/net/tun")


class Part(StrEnum):
    """What something needs."""

    PYTHON = "python"
    GO = "go"
    ENGINE = "engine"
    TESTS = "tests"


def ensure(parts: frozenset[Part]) -> None:
    """Name what is missing of these parts, then install it."""
    if Part.TESTS in parts and os.geteuid() != 0:
        raise Trouble("the tests make network namespaces, which takes root; run them with sudo.")
    wants_uv = tools.find_uv() is None
    wants_go = Part.GO in parts and tools.find_go() is None
    wants_engine = Part.ENGINE in parts and engine.state() is engine.State.ABSENT
    missing = missing_packages(parts, wants_uv=wants_uv, wants_engine=wants_engine)
    name_them(missing, wants_uv=wants_uv, wants_go=wants_go, wants_engine=wants_engine)
    if wants_engine:
        note_empty(DOCKER_DATA, CONTAINERD_DATA)
        note(PARENTS, *(str(folder) for folder in MADE_BY_DOCKER if not folder.exists()))
        if not any(group.gr_name == "docker" for group in grp.getgrall()):
            note(GROUPS, "docker")
    packages.install(missing)
    if wants_uv:
        tools.install_uv()
    if wants_go:
        tools.install_go()
    if Part.ENGINE in parts:
        ensure_engine()


TEST_PROGRAMS = {"curl": "curl", "ip": "iproute2", "iptables": "iptables", "nft": "nftables", "ps": "procps"}
"""Programs with which tests look at what Perry made, and the packages that have them."""


def missing_packages(parts: frozenset[Part], *, wants_uv: bool, wants_engine: bool) -> list[str]:
    """What apt has to bring."""
    wanted: list[str] = []
    if wants_uv and not has_module("ensurepip"):
        wanted.append(f"python3.{sys.version_info.minor}-venv")
    if not Path(tools.CERTIFICATES).exists():
        wanted.append("ca-certificates")
    if Part.ENGINE in parts:
        if wants_engine and find("dockerd") is None:
            wanted += ["docker.io", "iptables", "iproute2"]
        if shutil.which("docker") is None:
            # Newer Debians have the client in a package of its own; before, it is part of docker.io.
            wanted.append("docker-cli" if packages.has_candidate("docker-cli") else "docker.io")
        if shutil.which("ssh-keygen") is None:
            wanted.append("openssh-client")
    if Part.TESTS in parts:
        if shutil.which("gcc") is None or not Path("/usr/include/stdlib.h").exists():
            wanted += ["gcc", "libc6-dev"]
        wanted += [package for program, package in TEST_PROGRAMS.items() if find(program) is None]
    return list(dict.fromkeys(wanted))


def name_them(missing: list[str], *, wants_uv: bool, wants_go: bool, wants_engine: bool) -> None:
    """Say what will be installed, before it is."""
    named = [f"by apt: {', '.join(missing)}"] if missing else []
    own = [f"uv {tools.UV_VERSION}"] if wants_uv else []
    own += [f"Go {tools.GO_VERSION}"] if wants_go else []
    if own:
        named.append(f"into .build: {', '.join(own)}")
    if wants_engine and find("mmdebstrap") is None:
        named.append("by apt, if no container registry answers: mmdebstrap")
    if named:
        say("Missing here, and installed now: " + "; ".join(named) + ".")
    else:
        say("Everything that is needed is here.")


def note_empty(*folders: Path) -> None:
    """Remember that what will lie in these folders comes from us."""
    for folder in folders:
        # Root's own, where they exist: another person may not look into them.
        if not folder.exists() or output([*sudo(), "ls", "-A", str(folder)]) == "":
            note(FOLDERS, str(folder))


def has_module(name: str) -> bool:
    """Whether this Python has it."""
    return subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, check=False).returncode == 0


def ensure_engine() -> None:
    """An engine that answers this person, a TUN device, and something to make a base image of."""
    if engine.state() is engine.State.ABSENT:
        engine.start()
    if engine.state() is engine.State.DENIED and not in_docker_group():
        say("Docker answers only root and the group docker: adding you to that group.")
        engine.join_group()
    if not TUN.exists():
        load_tun()
    if any(engine.has_image(tag) for tag in ("perry/base:latest", "perry/rootfs:trixie", engine.DEBIAN)):
        return
    # It comes now, or with the build of the images.
    note(IMAGES, engine.DEBIAN)
    if find("mmdebstrap") is None and not engine.registry_answers():
        say("No container registry answers, so the base image is made of Debian's packages: installing mmdebstrap.")
        # Another distribution's apt does not trust Debian; with gpg mmdebstrap finds out by which keys it may.
        packages.install(["mmdebstrap", "debian-archive-keyring", *([] if is_debian() else ["gpg"])])


def is_debian() -> bool:
    """Whether this is Debian itself."""
    try:
        return "ID=debian" in Path("/etc/os-release").read_text().splitlines()
    except FileNotFoundError:
        return False


def in_docker_group() -> bool:
    """Whether this person is in the group by now, if not yet in this process."""
    try:
        return getpass.getuser() in grp.getgrnam("docker").gr_mem
    except KeyError:
        return False


def load_tun() -> None:
    """Workspaces join the tailnet by a TUN device."""
    if find("modprobe") is not None:
        subprocess.run([*sudo(), str(find("modprobe")), "tun"], capture_output=True, check=False)
    if not TUN.exists():
        raise Trouble(
            f"{TUN} is missing, and no workspace could join a tailnet as it should; load the kernel's module tun, "
            "or, in a container, start that with --device /dev/net/tun."
        )


def main() -> None:
    """As the Makefile calls it."""
    ensure(frozenset(Part(word) for word in sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(ends_with_a_sentence(main))
