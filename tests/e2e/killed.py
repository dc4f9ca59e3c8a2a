"""A control plane that kills itself at its n-th checkpoint, or at one by name: ``python -m tests.e2e.killed N|NAME``.

Only here: the program that people run has no such switch.
"""

import os
import signal
import sys
from collections.abc import Callable

from controlplane.__main__ import run_agent


def killer(at: str) -> Callable[[str], None]:
    passed: list[str] = []

    def checkpoint(name: str) -> None:
        passed.append(name)
        sys.stderr.write(f"checkpoint {len(passed)}: {name}\n")
        sys.stderr.flush()
        if at in (name, str(len(passed))):
            os.kill(os.getpid(), signal.SIGKILL)

    return checkpoint


if __name__ == "__main__":
    run_agent(os.environ, checkpoint=killer(sys.argv[1]))
