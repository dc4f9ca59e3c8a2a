"""Shows what an agent does while it does it, for commands that wait for one answer."""

import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from cli.client import Client
from cli.errors import CliError, Interrupted
from cli.events import Events
from cli.steps import FRAME_SECONDS, View, view
from protocol.events import Event, Snapshot, WorkspaceChanged
from protocol.workspaces import Startup, StartupState, Workspace

T = TypeVar("T")


def following(client: Client, name: str, what: str, call: Callable[[], T]) -> T:
    """The call's answer. Until it comes, the steps that the agent tells of are shown on stderr.

    ``what`` is for the sentence after ctrl-C: the work goes on then.
    """
    asked = _Asked(call)
    shown = view(sys.stderr)
    try:
        try:
            with Events(client, name) as events:
                asked.start()
                while asked.is_alive():
                    event = events.receive(FRAME_SECONDS)
                    shown.tick()
                    _show(shown, event, name)
        except CliError:
            # Not seeing how it goes is no reason not to do it, and no reason to say more than the call itself does.
            asked.start()
        asked.join()
    except KeyboardInterrupt as exc:
        raise Interrupted(f"Interrupted here; {what} goes on. `perry info {name}` shows how far it is.") from exc
    finally:
        shown.close()
    return asked.answer()


class _Asked(threading.Thread, Generic[T]):
    """The call, in a thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._begun = False
        self._answers: list[T] = []
        self._error: BaseException | None = None

    def start(self) -> None:
        """Once, however often it is asked for."""
        if not self._begun:
            self._begun = True
            super().start()

    def run(self) -> None:
        try:
            self._answers.append(self._call())
        except BaseException as exc:
            self._error = exc

    def answer(self) -> T:
        """What came, or what went wrong."""
        if self._error is not None:
            raise self._error
        return self._answers[0]


def _show(shown: View, event: Event | None, name: str) -> None:
    workspaces: list[Workspace] = []
    if isinstance(event, WorkspaceChanged):
        workspaces = [event.workspace]
    elif isinstance(event, Snapshot):
        workspaces = event.workspaces
    for workspace in workspaces:
        if workspace.name != name:
            continue
        if workspace.work is not None:
            shown.update(Startup(attempt=0, state=StartupState.RUNNING, steps=workspace.work.steps))
        elif workspace.startup is not None and workspace.startup.state is StartupState.RUNNING:
            shown.update(workspace.startup)
