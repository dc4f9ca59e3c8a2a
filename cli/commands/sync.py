"""``perry sync``."""

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import WorkspaceName, as_json
from cli.errors import CliError, Misused
from protocol.credentials import Synced, SyncWorkspace
from protocol.workspaces import Workspace, WorkspaceStatus


@click.command()
@click.argument("name", type=WorkspaceName(), required=False)
@click.option("--all", "-a", "all_", is_flag=True, help="Every workspace that runs.")
@as_json
def sync(name: str | None, all_: bool, as_json: bool) -> None:
    """Bring what has changed of credentials and settings into a workspace that runs, and a newer worker.

    What was changed in the workspace stays, and is named. It also happens by itself, at each start and when a file
    changes on the agent's machine. `perry config` shows what is brought.
    """
    if all_ == (name is not None):
        raise Misused("Give the name of a workspace, or --all.")
    client = Client()
    client.check_version()
    names = [name] if name is not None else _running(client)
    if not names:
        output.note("No workspace runs; each is brought its credentials when it starts.")
    done: list[Synced] = []
    said: set[str] = set()
    failed: list[str] = []
    for each in names:
        try:
            synced = client.call("workspaces.sync", Synced, SyncWorkspace(name=each))
        except CliError as exc:
            if name is not None:
                raise
            output.warn(f"{each}: {exc.message}")
            failed.append(each)
            continue
        done.append(synced)
        if synced.problems:
            failed.append(each)
        if not as_json:
            _tell(synced, said)
    if as_json:
        output.data(done if all_ else done[0])
    if failed:
        raise CliError(f"Not everything could be brought into {', '.join(failed)}.")


def _running(client: Client) -> list[str]:
    workspaces = client.call("workspaces.list", list[Workspace])
    return [each.name for each in workspaces if each.status is WorkspaceStatus.RUNNING]


def _tell(synced: Synced, said: set[str]) -> None:
    """``said`` are problems that were said of workspaces before: most are the same for all."""
    count = len(synced.brought) + len(synced.removed) + (synced.worker is not None)
    what = "is up to date" if not count else f"got {count} change{'s' if count > 1 else ''}"
    output.line(f"{synced.name} {what}, in {synced.seconds:.1f} s.")
    for path in synced.brought:
        output.line(f"  {output.clean(path)}")
    for path in synced.removed:
        output.line(f"  {output.clean(path)} (taken away)")
    if synced.worker is not None:
        output.line(f"  the worker, version {output.clean(synced.worker)}")
    for sentence in synced.kept:
        output.note(f"  Kept: {output.clean(sentence)}")
    for sentence in synced.problems:
        if sentence not in said:
            said.add(sentence)
            output.warn(output.clean(sentence))
