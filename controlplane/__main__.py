"""``python -m controlplane``: what ``perry agent run`` and ``perry agent build`` start."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio
import click

from controlplane import openapi, process
from controlplane.app import procedures
from controlplane.errors import PerryError, StartupError
from controlplane.images.progress import Progress
from controlplane.settings import config_folder, document, load
from controlplane.system import logs
from controlplane.workspaces.pods import Checkpoint, no_checkpoint

CHECKOUT = Path(__file__).parents[1]


def run_agent(environ: Mapping[str, str], *, checkpoint: Checkpoint = no_checkpoint) -> None:
    """Run the control plane of this environment; ends the process with a sentence where it cannot."""
    with _ends_with_a_sentence(StartupError):
        loaded = load(config_folder(environ), environ)
        logs.configure(loaded.settings.log_level)
        process.run(loaded, environ, checkpoint=checkpoint)


@click.group()
def main() -> None:
    """The control plane."""


@main.command()
def run() -> None:
    """Run it, in the foreground."""
    run_agent(os.environ)


@main.command("build")
@click.option("--image", "images", multiple=True)
@click.option("--no-cache", is_flag=True)
def build_(images: tuple[str, ...], no_cache: bool) -> None:
    """Build Perry's images."""
    log = CHECKOUT / ".build" / "images.log"
    progress = Progress(sys.stdout, log)
    with _ends_with_a_sentence(PerryError, f"everything that was said is in {log}"):
        try:
            anyio.run(process.build, CHECKOUT, config_folder(os.environ), os.environ, images, no_cache, progress)
        finally:
            progress.close()


@main.command()
def settings() -> None:
    """Print docs/settings.md."""
    click.echo(document.page(), nl=False)


@main.command("openapi")
def openapi_() -> None:
    """Write protocol/openapi.json."""
    (CHECKOUT / openapi.FILE).write_bytes(openapi.encoded(procedures()))


@contextmanager
def _ends_with_a_sentence(kind: type[PerryError], more: str = "") -> Iterator[None]:
    """End the process with what such an error says, also where it comes in a group of which all are such."""
    try:
        yield
    except BaseException as exc:
        if isinstance(exc, BaseExceptionGroup) and exc.split(kind)[1] is not None:
            raise
        first = exc
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if not isinstance(first, kind):
            raise
        click.echo(f"perry: {first}" + (f" ({more})" if more else ""), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m controlplane")
