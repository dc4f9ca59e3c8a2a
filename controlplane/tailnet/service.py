"""The use cases of ``perry tailnet``."""

import shlex
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime

from controlplane.errors import NotReady, TailnetError
from controlplane.ports import Tailnet
from controlplane.tailnet.owners import complaint
from protocol.tailnet import GatewayStatus, JoinCommand, TailnetNode, TailnetStatus


class TailnetService:
    """``node_owners`` gives pairs of a node's id and the name of the workspace that it is; ``gateway`` says how the
    control plane's own node stands. ``elsewhere`` gives the names of workspaces that run on a tailnet that was
    configured before. ``leave`` takes the control plane's own node off the tailnet."""

    def __init__(
        self,
        tailnet: Tailnet,
        owners: Sequence[str],
        node_owners: Callable[[], dict[str, str]],
        gateway: Callable[[], GatewayStatus | None] = lambda: None,
        elsewhere: Callable[[], list[str]] = list,
        leave: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._leave = leave
        self._elsewhere = elsewhere
        self._gateway = gateway
        self._tailnet = tailnet
        self._owners = owners
        self._node_owners = node_owners

    async def leave(self) -> None:
        """Have the control plane's own node leave the tailnet, until its next start. NotReady where it is on none."""
        if self._leave is None:
            raise NotReady("There is no tailnet that the agent could leave.")
        await self._leave()

    async def status(self) -> TailnetStatus:
        """How it stands; an answer also where the coordinator is away."""
        info = await self._tailnet.info()
        error = info.error
        nodes: list[TailnetNode] = []
        if self._tailnet.joins:
            try:
                found = await self._tailnet.nodes()
            except TailnetError as exc:
                error = exc.message
            else:
                workspaces = self._node_owners()
                nodes = [
                    TailnetNode(
                        name=node.name,
                        ips=list(node.ips),
                        online=node.online,
                        tags=list(node.tags),
                        user=node.user,
                        workspace=workspaces.get(node.id),
                    )
                    for node in sorted(found, key=lambda node: node.name)
                ]
        # One that is away would only be waited for once more.
        doubts = await strangers(self._tailnet, self._owners) if error is None else []
        return TailnetStatus(
            provider=info.provider,
            ready=self._tailnet.joins and error is None,
            owners=list(self._owners or info.owners),
            nodes=nodes,
            control_url=info.control_url,
            domain=info.domain,
            error=error,
            warning=" ".join(filter(None, (info.warning, self._moved()))) or None,
            credential=info.credential,
            credential_expires=_rfc3339(info.credential_expires),
            owners_warning=" ".join(doubts) or None,
            gateway=self._gateway(),
        )

    def _moved(self) -> str | None:
        names = self._elsewhere()
        if not names or not self._tailnet.joins:
            return None
        runs, it = ("is", "it") if len(names) == 1 else ("are", "one")
        return (
            f"{', '.join(names)} {runs} still on the tailnet that was configured before; "
            f"`perry restart {names[0]}` brings {it} to this one."
        )

    async def join(self) -> JoinCommand:
        """A key for one device of the owner, and the command that uses it. The key is in its standard input."""
        key = await self._tailnet.mint_device_key()
        info = await self._tailnet.info()
        url = info.control_url or ""
        server = f" --login-server {shlex.quote(url)}" if url else ""
        return JoinCommand(
            # A profile of its own: `tailscale up` would refuse on a device that is on another tailnet already.
            # printf is a part of every POSIX shell, so that the key is in no process's arguments.
            command=f"printf %s {shlex.quote(key.secret)} | sudo tailscale login{server} --auth-key file:/dev/stdin",
            key=key.secret,
            expires=_rfc3339(key.expires) or "",
            control_url=url,
            # headscale's relay speaks plain http where it does itself; a stock client has to be told.
            environment={"TS_DEBUG_USE_DERP_HTTP": "1"} if url.startswith("http://") else {},
            notes=list(info.join_notes),
        )


async def strangers(tailnet: Tailnet, owners: Collection[str]) -> list[str]:
    """What is wrong with the owners: there are none, or nobody on the tailnet has the name. Empty where all is well."""
    if not tailnet.joins:
        return []
    named = owners or (await tailnet.info()).owners
    try:
        people = await tailnet.users()
    except TailnetError:
        people = None
    said = complaint(tuple(named), people)
    return [] if said is None else [said]


def _rfc3339(at: datetime | None) -> str | None:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z") if at is not None else None
