"""Inside a workspace that runs: one command to its end, what listens, and what was printed."""

from collections.abc import Mapping

import anyio

from controlplane.errors import NotReady, TookTooLong
from controlplane.ports import Engine
from controlplane.workspaces import listening, log_times
from controlplane.workspaces.checkout import USER
from controlplane.workspaces.environment import in_environment
from controlplane.workspaces.spec import HOME
from protocol.workspaces import ExecCommand, ExecResult, ListeningPorts, LogLine, LogLines, WorkspaceLogs

EXEC_OUTPUT_LIMIT = 4 << 20


class Inside:
    """Asks by way of Docker. ``container`` is that of the workspace, which runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def exec(self, container: str, wanted: ExecCommand) -> ExecResult:
        """Run a command as user ``workspace`` in the project folder, or in home where there is none."""
        cwd = wanted.cwd or await self._project(container, wanted.name)
        command = ["timeout", "--", str(wanted.timeout), *in_environment(*wanted.command)]
        try:
            with anyio.fail_after(wanted.timeout + 5):
                output = await self._engine.exec(container, command, user=USER, cwd=cwd, limit=EXEC_OUTPUT_LIMIT)
        except TimeoutError as exc:
            raise TookTooLong(f"The command did not end within {wanted.timeout:g} s.") from exc
        return ExecResult(
            exit_code=output.exit_code,
            stdout=output.stdout.decode(errors="replace"),
            stderr=output.stderr.decode(errors="replace"),
            truncated=output.truncated,
        )

    async def _project(self, container: str, name: str) -> str:
        folder = f"{HOME}/{name}"
        found = await self._engine.exec(container, ["test", "-d", folder], user=USER)
        return folder if found.exit_code == 0 else HOME

    async def ports(self, container: str, name: str) -> ListeningPorts:
        """What listens in it, but what is Perry's own."""
        said = await self._engine.exec(container, listening.COMMAND, user=USER, limit=listening.OUTPUT_LIMIT)
        if said.exit_code != 0:
            raise NotReady(f"{name!r} could not say what listens in it; its image needs `ss`, of Debian's iproute2.")
        return ListeningPorts(items=listening.listening(said.stdout.decode(errors="replace")))

    async def logs(self, sources: Mapping[str, str], wanted: WorkspaceLogs) -> LogLines:
        """The newest lines of these containers, by what people call them; oldest first."""
        since = log_times.exact(wanted.since)
        lines = [
            LogLine(at=entry.at, source=source, text=entry.text)
            for source, container in sources.items()
            for entry in await self._engine.logs(container, tail=wanted.tail, since=since)
            if source == "workspace" or entry.stream == "stderr"
        ]
        lines.sort(key=lambda line: line.at)
        return LogLines(items=lines[-wanted.tail :])
