"""``python -m tests.fakes.model_server --port 8085``; inside a workspace ``python3 -m model_server``."""

import argparse
import json
import signal
import sys
from pathlib import Path

from .server import ModelServer


def main() -> None:
    parser = argparse.ArgumentParser(description="A model server that does what prompts tell it.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8085, help="0: any that is free")
    parser.add_argument("--scripts", type=Path, help="a JSON object: regular expression of a prompt to what is done")
    chosen = parser.parse_args()
    scripts = json.loads(chosen.scripts.read_text()) if chosen.scripts else {}
    with ModelServer(host=chosen.host, port=chosen.port, scripts=scripts) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
