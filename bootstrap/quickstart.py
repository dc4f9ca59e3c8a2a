"""``make quickstart``: from a built checkout to a workspace that answers on the tailnet, and the proof of it.

Each step looks first whether it is done already, so that a second run takes seconds and changes nothing.
"""

import os
import sys
import time
from pathlib import Path

from bootstrap import device
from bootstrap.notes import AGENT, CHECKOUT, FOLDERS, LINKS, MEMBERS, PARENTS, WORKSPACES, note, noted
from bootstrap.perry import PERRY, PYTHON, config_folder, is_link_to_us, perry_json
from bootstrap.running import Trouble, ends_with_a_sentence, run, say

WORKSPACE = "hello"
SSH_SECONDS = 60


def main() -> None:
    """All of it, after `bootstrap.ensure`."""
    began = time.monotonic()
    step("Perry's own programs")
    install_perry()
    step("The images")
    run([str(PYTHON), "-P", "-m", "controlplane", "build"], "build the images")
    step("The control plane, with a tailnet of its own")
    start_agent()
    step(f"A workspace: perry start {WORKSPACE} --clone .")
    start_workspace()
    step("A second device on the tailnet, in a container")
    device.join()
    step(f"ssh workspace@{WORKSPACE}, from that device")
    show_ssh()
    step("perry on the PATH")
    word = link()
    say(f"{word}\n\n{farewell()}\n\n(This took {time.monotonic() - began:.0f} s.)")


def step(title: str) -> None:
    """Say what comes now."""
    say(f"\n== {title}")


def install_perry() -> None:
    """The virtual environment of the checkout, exactly as uv.lock has it."""
    folder = CHECKOUT / ".venv"
    if not folder.exists():
        note(FOLDERS, str(folder))
    # --inexact: what the tests need besides stays where it is there.
    run(["uv", "sync", "--frozen", "--no-dev", "--inexact", "-q"], "install Perry's Python packages")


def start_agent() -> None:
    """The control plane in the background; where one runs already, that one."""
    folder = config_folder()
    if not (folder / "token").exists():
        note(PARENTS, *(str(parent) for parent in (folder, folder.parent) if not parent.exists()))
        note(AGENT, str(folder))
    run([str(PERRY), "agent", "run", "-d"], "start the control plane")


def start_workspace() -> None:
    """The workspace with a clone of what is committed here."""
    if WORKSPACE not in {workspace["name"] for workspace in perry_json("list")}:
        note(WORKSPACES, WORKSPACE)
    run([str(PERRY), "start", WORKSPACE, "--clone", "."], f"start the workspace {WORKSPACE}")


def show_ssh() -> None:
    """The proof: no key, no password, no question, and a host that is known."""
    keys = perry_json("info", WORKSPACE)["sshHostKeys"]
    device.knows(WORKSPACE, keys)
    proof = (
        'echo "I am $(id -un) on $(hostname); ~/$(hostname) has $(git -C ~/$(hostname) rev-list --count HEAD) commits"'
    )
    deadline = time.monotonic() + SSH_SECONDS
    while True:
        code, said = device.run("ssh", "-o", "BatchMode=yes", f"workspace@{WORKSPACE}", proof, check=False)
        if code == 0:
            say(f"$ ssh workspace@{WORKSPACE}\n{said.strip()}")
            return
        if time.monotonic() > deadline:
            raise Trouble(
                f"ssh workspace@{WORKSPACE} did not answer within {SSH_SECONDS} s ({said.strip()[-300:]}); "
                "`perry doctor` may say why."
            )
        time.sleep(0.3)


def link() -> str:
    """Put perry where the shell finds it, never in the place of something else. Says where it is."""
    folders = [Path(part) for part in os.environ.get("PATH", "").split(":")]
    wanted = [Path("/usr/local/bin"), Path.home() / ".local" / "bin"]
    for place in (folder / "perry" for folder in wanted):
        if is_link_to_us(place):
            return f"perry is {place}, as before."
    for folder in wanted:
        place = folder / "perry"
        taken = place.is_symlink() or place.exists()
        if folder in folders and folder.is_dir() and os.access(folder, os.W_OK) and not taken:
            # Noted first: clean looks where it leads before it removes one.
            note(LINKS, str(place))
            place.symlink_to(PERRY)
            return f"perry is {place} now."
    return f'Put this line into your shell\'s profile: export PATH="{PERRY.parent}:$PATH"'


def farewell() -> str:
    """What to try next."""
    added = "" if not noted(MEMBERS) else "\n(You are in the group docker from your next login on.)"
    return f"""Perry runs. Try next:
  perry list
  perry ssh {WORKSPACE}
  perry start another --clone URL        (or a path)
  perry tailnet join                     (the command with which your laptop joins)
  perry doctor
`make quickstart-clean` removes all of it.{added}"""


if __name__ == "__main__":
    sys.exit(ends_with_a_sentence(main))
