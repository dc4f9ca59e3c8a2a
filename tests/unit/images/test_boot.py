"""What a workspace says at its boot (images/workspace)."""

import subprocess
from pathlib import Path

import pytest

BOOT = Path(__file__).parents[3] / "images/workspace/rootfs/usr/lib/perry/boot"


@pytest.mark.parametrize(("key", "said"), [("ssh-ed25519 AAAA alpha\n", "ssh-ed25519 AAAA alpha"), (None, "")])
def test_it_becomes_its_supervisor_with_a_key_and_without(tmp_path: Path, key: str | None, said: str) -> None:
    """On a disk that is full there may be none, and a container whose first process ends would be started for ever."""
    boot = BOOT.read_text()
    assert "\nset -u\n" in boot
    end = boot[boot.index("# Home is ready") :].replace("exec s6-svscan", "exec echo supervised")
    if key is not None:
        (tmp_path / "ssh_host_ed25519_key.pub").write_text(key)
    done = subprocess.run(
        ["/bin/sh", "-u", "-c", end], env={"keys": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == [f"perry: host key {said}", "supervised /run/perry-services"]
