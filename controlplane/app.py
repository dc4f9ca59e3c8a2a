"""The application: every route, what stands around them, and what they work on. No globals; wiring brings it all."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import msgspec
from litestar import Litestar

from controlplane import openapi
from controlplane.asgi import App
from controlplane.auth import routes as auth
from controlplane.auth.door import Door
from controlplane.auth.guards import guard
from controlplane.auth.service import Resolver, Tokens
from controlplane.batches import routes as batches
from controlplane.batches.service import BatchService
from controlplane.commands import routes as commands
from controlplane.commands.service import Commands
from controlplane.config import routes as config
from controlplane.config.service import Configuration
from controlplane.credentials import routes as credentials
from controlplane.credentials.service import Credentials
from controlplane.credentials.store import Secrets
from controlplane.cron import routes as cron
from controlplane.cron.service import Cron
from controlplane.events import routes as events
from controlplane.events.bus import Bus
from controlplane.logs import routes as logs
from controlplane.logs.service import Logs
from controlplane.problems import HANDLERS
from controlplane.procedures import Bound, Group, Procedure
from controlplane.rpc import BODY_LIMIT, route
from controlplane.sessions import routes as sessions
from controlplane.sessions.changes import Changes
from controlplane.sessions.service import Sessions
from controlplane.settings import Loaded
from controlplane.system import routes as system
from controlplane.system.metrics import Metrics
from controlplane.system.readiness import Probe
from controlplane.system.requests import Requests
from controlplane.system.service import Agent
from controlplane.tailnet import routes as tailnet
from controlplane.tailnet.service import TailnetService
from controlplane.tasks import routes as tasks
from controlplane.tasks.fallback import Fallback
from controlplane.tasks.service import TaskService
from controlplane.wake import routes as wake
from controlplane.wake.service import WakeService
from controlplane.workspaces import routes as workspaces
from controlplane.workspaces.uploads import UploadFolder

GROUPS: tuple[Group[Any], ...] = (
    workspaces.group,
    sessions.group,
    system.agent,
    config.group,
    tailnet.group,
    auth.group,
    credentials.workspaces,
    credentials.group,
    credentials.secrets,
    cron.group,
    tasks.group,
    tasks.fallback,
    batches.group,
    wake.group,
)
"""Every group of procedures; a new feature adds its own here, and its service in :class:`Services`."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What the routes work on. ``probes`` are what ``/ready`` asks, by the names that it shows."""

    loaded: Loaded
    workspaces: workspaces.Workspaces
    agent: Agent
    tailnet: TailnetService
    bus: Bus
    commands: Commands
    logs: Logs
    credentials: Credentials
    secrets: Secrets
    sessions: Sessions
    session_changes: Changes
    cron: Cron
    tasks: TaskService
    fallback: Fallback
    batches: BatchService
    wakes: WakeService
    uploads: UploadFolder
    tokens: Tokens
    metrics: Metrics
    probes: Mapping[str, Probe]

    def end_streams(self) -> None:
        """End what would go on for ever: the control plane stops."""
        self.bus.close()
        self.commands.close()
        self.logs.close()
        self.wakes.close()
        self.session_changes.close()

    def bound(self) -> list[Bound]:
        """Every procedure with its service."""
        return [
            *workspaces.group.bind(self.workspaces),
            *sessions.group.bind(self.sessions),
            *system.agent.bind(self.agent),
            *config.group.bind(Configuration(self.loaded)),
            *tailnet.group.bind(self.tailnet),
            *credentials.workspaces.bind(self.credentials),
            *credentials.group.bind(self.credentials),
            *credentials.secrets.bind(self.secrets),
            *cron.group.bind(self.cron),
            *tasks.group.bind(self.tasks),
            *tasks.fallback.bind(self.fallback),
            *batches.group.bind(self.batches),
            *wake.group.bind(self.wakes),
            *auth.group.bind(auth.Nothing()),
        ]


def procedures() -> Sequence[Procedure]:
    """Every procedure of the API."""
    return [procedure for group in GROUPS for procedure in group.procedures]


def create_app(services: Services) -> Litestar:
    """The routes. Serve it through :func:`listener` only: by itself it takes everybody for anonymous."""
    services.metrics.watch(services.workspaces.last_seen, lambda: services.bus.subscribers)
    return Litestar(
        route_handlers=[
            *(route(bound) for bound in services.bound()),
            *system.routes(services.metrics, services.probes, lambda: openapi.encoded(procedures())),
            events.route(services.bus, services.workspaces.last_seen, services.tokens),
            commands.route(services.commands, services.tokens),
            logs.route(services.logs),
            *sessions.routes(services.sessions, services.session_changes, services.tokens),
            workspaces.upload_route(services.uploads),
            wake.wake_route(services.wakes),
        ],
        guards=[guard],
        exception_handlers=HANDLERS,
        request_max_body_size=BODY_LIMIT,
        openapi_config=None,
        logging_config=None,
    )


def listener(
    app: Litestar,
    *,
    requests: Requests,
    resolver: Resolver,
    allowed_hosts: Sequence[str] = (),
    names: Callable[[], Collection[str]] = tuple,
) -> App:
    """The application as one listener serves it. ``resolver`` is whom that listener trusts.

    ``names`` are hosts that requests may mean besides ``allowed_hosts``, as they are now.
    """
    door = Door(cast(App, app), resolver=resolver, allowed_hosts=tuple(allowed_hosts), names=names)
    return requests.around(door)
