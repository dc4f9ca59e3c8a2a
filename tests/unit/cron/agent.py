"""A control plane on fakes that keeps its state.db: ``python -m tests.unit.cron.agent FOLDER``."""

import os
import sys
from pathlib import Path

from controlplane import process
from controlplane.settings import load
from controlplane.system import logs
from tests.fakes.agent import fakes


def main() -> None:
    folder = Path(sys.argv[1])
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PERRY_")}
    loaded = load(folder, environ)
    logs.configure("warning")
    process.run(loaded, environ, outside=lambda _: fakes(folder))


if __name__ == "__main__":
    main()
