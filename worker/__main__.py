"""``python -m worker``: ``serve [SECONDS]`` is the worker itself, ``run-task`` the process that stands around one task;
else it is the small command ``perry`` of a workspace.
"""

import os
import sys


def main() -> int:
    """The exit code."""
    if sys.argv[1:2] == ["serve"]:
        serve(float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
        return 0
    if sys.argv[1:2] == ["run-task"]:
        from worker.tasks import runner

        runner.main(sys.argv[2])
        return 0
    from worker.commands import main as command

    return command(sys.argv[1:])


def serve(patience: float) -> None:
    """The worker itself. It loads itself when its first client comes, or after ``patience`` seconds without one."""
    from worker import waiting

    listening = waiting.by_port(waiting.until_somebody_comes(os.environ, patience)) if patience > 0 else {}
    import asyncio
    import logging

    from worker import app, settings

    logging.basicConfig(level=logging.INFO, format="worker: %(levelname)s %(message)s")
    logging.getLogger("worker.websockets").setLevel(logging.WARNING)
    asyncio.run(app.run(settings.load(os.environ), listening))


if __name__ == "__main__":
    sys.exit(main())
