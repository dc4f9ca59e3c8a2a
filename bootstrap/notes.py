"""What was installed on this machine for the checkout, so that ``make quickstart-clean`` removes that and only that."""

import json
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
BUILD = CHECKOUT / ".build"
"""Everything that the checkout builds or downloads for itself."""

FILE = BUILD / "installed.json"

PACKAGES = "packages"
"""Debian's packages that were not there, dependencies included."""
IMAGES = "images"
"""Docker images of others that were pulled."""
SERVICES = "services"
"""Services of systemd that were started."""
FOLDERS = "folders"
"""Folders that were not there, or empty: what lies in them by now came with us."""
PARENTS = "parents"
"""Folders that were not there; somebody else may have put something there meanwhile."""
GROUPS = "groups"
"""Groups that were not there."""
MEMBERS = "members"
"""Persons who were added to the group docker."""
LINKS = "links"
"""Symbolic links outside of the checkout."""
WORKSPACES = "workspaces"
"""Workspaces that quickstart made."""
AGENT = "agent"
"""Perry's configuration folders that quickstart's agent was the first to use."""


def noted(kind: str) -> list[str]:
    """What is noted of this kind, oldest first."""
    try:
        known: dict[str, list[str]] = json.loads(FILE.read_text())
    except FileNotFoundError:
        return []
    return known.get(kind, [])


def note(kind: str, *values: str) -> None:
    """Remember these, once each. They are on the disk when this returns."""
    try:
        known: dict[str, list[str]] = json.loads(FILE.read_text())
    except FileNotFoundError:
        known = {}
    fresh = list(dict.fromkeys([*known.get(kind, []), *values]))
    if fresh == known.get(kind, []):
        return
    BUILD.mkdir(exist_ok=True)
    half = FILE.with_suffix(".new")
    half.write_text(json.dumps({**known, kind: fresh}, indent=1) + "\n")
    half.replace(FILE)
