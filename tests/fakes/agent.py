"""``make dev``: a control plane on fakes, with its real API, CLI and state.db. No Docker, no tailnet.

    python -m tests.fakes.agent

keeps its state in ``.build/dev``; ``PERRY_CONFIG_DIR=.build/dev perry list`` speaks to it.
"""

import os
from pathlib import Path

from controlplane import wiring
from controlplane.settings import load
from controlplane.system import logs
from controlplane.wiring import Outside
from tests.fakes.engine import FakeEngine
from tests.fakes.machine import FakeMachine
from tests.fakes.pods import IMAGES, FakePods
from tests.fakes.tailnet import FakeTailnet

FOLDER = Path(__file__).parents[2] / ".build" / "dev"


def fakes() -> Outside:
    engine, tailnet = FakeEngine(IMAGES), FakeTailnet()
    FakePods(engine, tailnet)
    return Outside(engine=engine, tailnet=tailnet, machine=FakeMachine())


def main() -> None:
    environ = {**os.environ, "PERRY_CONFIG_DIR": str(FOLDER)}
    loaded = load(FOLDER, environ)
    logs.configure("info")
    # What the fakes knew is gone with them, so what state.db knows of it goes too.
    for file in FOLDER.glob("state.db*"):
        file.unlink()
    print(f"Speak to it with: export PERRY_CONFIG_DIR={FOLDER}")  # noqa: T201
    wiring.run(loaded, environ, outside=lambda _: fakes())


if __name__ == "__main__":
    main()
