"""``perry clone`` on real parts: what comes along, what does not, and a kill at the worst moment."""

import itertools

import httpx
import pytest

from protocol.workspaces import TailnetState, Workspace, WorkspaceStatus
from tests.e2e.system import System, docker, eventually

pytestmark = [pytest.mark.tailnet, pytest.mark.timeout(300)]

FILL = """
mkdir -p ~/alpha/deep && cd ~/alpha && git init -q . && head -c 30M /dev/urandom > deep/data && ln deep/data deep/hard
ln -s /home/workspace/alpha/deep/data link && printf 'a\\n' > $'name with \\n a line' && truncate -s 1G sparse
mkdir -p ~/.local/state/perry/wakes && touch ~/.local/state/perry/wakes/untold ~/.local/state/theirs
chmod 0640 deep/data && touch -d 2001-01-01 deep/old
sudo sh -c 'echo "#!/bin/sh\necho installed" > /usr/local/bin/tool && chmod +x /usr/local/bin/tool && rm /usr/bin/tree'
(while sleep 0.05; do date +%s.%N >> ~/alpha/ticks; done) > /dev/null 2>&1 &
"""
TELL = (
    "cd ~/alpha && git status --short | sha256sum && sha256sum deep/data link && stat -c '%a %h %U %Y %b' deep/* sparse"
)


def test_a_copy_has_all_of_it_and_is_its_own(system: System, alpha: Workspace) -> None:
    system.inside("alpha", "bash", "-c", FILL)
    system.inside("alpha", "docker", "volume", "create", "theirs")
    before = system.inside("alpha", "bash", "-c", TELL)
    done = system.perry("clone", "alpha", "copy")
    assert "~/alpha is ~/copy there" in done.stdout and "copy runs, after" in done.stdout
    copy = system.workspace("copy")
    assert copy.status is WorkspaceStatus.RUNNING and copy.tailnet.status is TailnetState.ONLINE
    assert copy.image == f"{system.instance}-copy:clone"
    assert set(copy.ssh_host_keys).isdisjoint(alpha.ssh_host_keys)
    assert copy.ports.ssh != alpha.ports.ssh and set(copy.tailnet.ips).isdisjoint(alpha.tailnet.ips)
    assert system.inside("copy", "bash", "-c", TELL) == before
    assert system.inside("copy", "tool") == "installed\n"
    assert system.inside("copy", "ls", "/usr/bin").split().count("tree") == 0
    assert "theirs" in system.inside("copy", "docker", "volume", "ls", "-q").split()
    assert system.inside("copy", "hostname") == "copy\n"

    assert "untold" not in system.inside("copy", "find", "/home/workspace/.local/state")
    assert "theirs" in system.inside("copy", "ls", "/home/workspace/.local/state")

    # Its image was made of the other's container, without what only one workspace may know.
    known = system.inside("copy", "ls", "/etc/perry").split()
    assert "worker-secret" in known and "opencode-password" in known
    assert docker("run", "--rm", "--network", "none", "--entrypoint", "ls", copy.image, "-A", "/etc/perry") == ""

    # What ran there did so all the time, but for the moment in which it was frozen.
    ticks = [float(line) for line in system.inside("alpha", "cat", "/home/workspace/alpha/ticks").split()]
    longest = max(after - tick for tick, after in itertools.pairwise(ticks))
    print(f"frozen for {longest:.2f} s at most")  # noqa: T201
    assert longest < 10
    copied = [float(line) for line in system.inside("copy", "cat", "/home/workspace/copy/ticks").split()]
    assert copied == ticks[: len(copied)] and copied, "the copy is of one moment"

    # The two go their own ways.
    system.inside("copy", "sh", "-c", "echo theirs > ~/copy/deep/data; rm ~/.bashrc")
    assert system.inside("alpha", "bash", "-c", TELL) == before
    refused = system.perry("clone", "alpha", "copy", check=False)
    assert refused.returncode != 0 and "'copy' exists already" in refused.stderr
    assert "There is no workspace named 'none'" in system.perry("clone", "none", "new", check=False).stderr


def test_killed_while_the_other_is_frozen_it_goes_on_and_the_copy_becomes_whole(system: System) -> None:
    clean = system.objects()
    system.start_workspace("gamma", docker=False)
    content = system.inside("gamma", "sh", "-c", "mkdir ~/gamma; date | tee ~/gamma/x")
    system.stop()
    system.start("tests.e2e.killed", "frozen")
    with pytest.raises(httpx.TransportError):
        system.raw("workspaces.clone", {"name": "gamma", "new": "delta"})
    assert docker("inspect", "-f", "{{.State.Status}}", system.container("gamma")) == "paused"
    system.stop()
    system.start()
    eventually(lambda: docker("inspect", "-f", "{{.State.Status}}", system.container("gamma")) == "running", "unfrozen")
    eventually(lambda: system.workspace("delta").status is WorkspaceStatus.RUNNING, "the copy is whole")
    assert system.inside("delta", "cat", "/home/workspace/delta/x") == content
    assert not docker("ps", "-aq", "--filter", f"name={system.container('delta', '.copier')}")
    for name in ("gamma", "delta"):
        system.call("workspaces.delete", {"name": name, "force": True})
    assert system.objects() == clean
    assert not docker("images", "-q", "--filter", f"label=perry.instance={system.instance}",
                      "--filter", "label=perry.workspace=delta")  # fmt: skip
