"""``python -m worker``: with ``serve`` the worker itself, else the small command ``perry`` of a workspace."""

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
    from worker.commands import main as command

    return command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
