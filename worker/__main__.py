"""``python -m worker``: ``serve`` is the worker itself, ``run-task`` the process that stands around one task; else it
is the small command ``perry`` of a workspace.
"""

import asyncio
import logging
import os
import sys


def main() -> int:
    """The exit code."""
    if sys.argv[1:] == ["serve"]:
        from worker import app, settings

        logging.basicConfig(level=logging.INFO, format="worker: %(levelname)s %(message)s")
        logging.getLogger("worker.websockets").setLevel(logging.WARNING)
        asyncio.run(app.run(settings.load(os.environ)))
        return 0
    if sys.argv[1:2] == ["run-task"]:
        from worker.tasks import runner

        runner.main(sys.argv[2])
        return 0
    from worker.commands import main as command

    return command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
