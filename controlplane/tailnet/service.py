"""The use cases of ``perry tailnet``."""

import shlex
from collections.abc import Callable, Collection, Sequence

from controlplane.errors import TailnetError
from controlplane.ports import Tailnet
from protocol.tailnet import GatewayStatus, JoinCommand, TailnetNode, TailnetStatus


class TailnetService:
    """``node_owners`` gives pairs of a node's id and the name of the workspace that it is; ``gateway`` says how the
    control plane's own node stands."""

    def __init__(
        self,
        tailnet: Tailnet,
        owners: Sequence[str],
        node_owners: Callable[[], dict[str, str]],
        gateway: Callable[[], GatewayStatus | None] = lambda: None,
    ) -> None:
        self._gateway = gateway
        self._tailnet = tailnet
        self._owners = owners
        self._node_owners = node_owners

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
        unknown = await strangers(self._tailnet, self._owners)
        return TailnetStatus(
            provider=info.provider,
            ready=self._tailnet.joins and error is None,
            owners=list(self._owners or info.owners),
            nodes=nodes,
            control_url=info.control_url,
            domain=info.domain,
            error=error,
            warning=" ".join([*([info.warning] if info.warning else []), *unknown]) or None,
            gateway=self._gateway(),
        )

    async def join(self) -> JoinCommand:
        """A key for one device of the owner, and the command that uses it. The key is in its standard input."""
        key = await self._tailnet.mint_device_key()
        info = await self._tailnet.info()
        url = info.control_url or ""
        server = f" --login-server {shlex.quote(url)}" if url else ""
        return JoinCommand(
            # A profile of its own: `tailscale up` would refuse on a device that is on another tailnet already.
            command=f"sudo tailscale login{server} --auth-key file:/dev/stdin <<< {shlex.quote(key.secret)}",
            key=key.secret,
            expires=key.expires.isoformat(timespec="seconds").replace("+00:00", "Z") if key.expires else "",
            control_url=url,
            # headscale's relay speaks plain http where it does itself; a stock client has to be told.
            environment={"TS_DEBUG_USE_DERP_HTTP": "1"} if url.startswith("http://") else {},
            notes=list(info.join_notes),
        )


async def strangers(tailnet: Tailnet, owners: Collection[str]) -> list[str]:
    """A sentence for each owner who is nobody on the tailnet; none where it cannot be asked."""
    if not owners or not tailnet.joins:
        return []
    try:
        users = await tailnet.users()
    except TailnetError:
        return []
    if users is None:
        return []
    there = ", ".join(sorted(users)) or "nobody"
    return [
        f"auth.owners names {owner!r}, who is nobody on the tailnet; there is {there}."
        for owner in owners
        if owner not in users
    ]
