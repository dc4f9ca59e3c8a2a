"""The embedded tailnet: a headscale in a container of ours, for machines where no tailnet is configured.

It runs in the machine's own network namespace and listens on one address of the machine. Published from a bridge, it
could not be reached by pods: Docker drops what goes from one bridge to another, also by the machine's address.
"""

import contextlib
import hashlib
import json
import logging
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import msgspec

from controlplane.adapters.tailnet.headscale_api import HeadscaleApi, Refused, usable
from controlplane.errors import EngineError, NotReady, TailnetError, TailnetUnavailable
from controlplane.ports import AuthKey, ContainerSpec, Engine, File, Machine, Node, Role, TailnetInfo, VolumeMount

log = logging.getLogger(__name__)

USER = "owner"
WORKSPACE_TAG = "tag:perry-workspace"
GATEWAY_TAG = "tag:perry-gateway"
STATE = "/var/lib/headscale"
SOCKET = f"{STATE}/headscale.sock"

ANSWER_SECONDS = 20
KEY_LIFETIME = "8760h"
MEMORY = 512 * 1024 * 1024

DOCUMENTATION_ADDRESS = "198.51.100.1"
"""Asking for the way there sends nothing, and names the address that this machine is known by (RFC 5737)."""

POLICY = {
    "tagOwners": {WORKSPACE_TAG: [f"{USER}@"], GATEWAY_TAG: [f"{USER}@"]},
    "acls": [
        {"action": "accept", "src": [f"{USER}@"], "dst": [f"{WORKSPACE_TAG}:*", f"{GATEWAY_TAG}:*", f"{USER}@:*"]},
        {"action": "accept", "src": [WORKSPACE_TAG], "dst": [f"{WORKSPACE_TAG}:*"]},
        {"action": "accept", "src": [WORKSPACE_TAG], "dst": [f"{GATEWAY_TAG}:80,443,7391,18789"]},
    ],
    # So that a node that restarts while the coordinator is away is back at once.
    "nodeAttrs": [{"target": ["*"], "attr": ["cache-network-maps"]}],
}
"""Owners reach everything of Perry's and their own devices; workspaces reach workspaces and no device of an owner."""


class EmbeddedTailnet:
    """``address`` empty is that by which this machine reaches others. ``key_file`` holds headscale's API key, 0600."""

    provider = "embedded"
    joins = True

    def __init__(
        self,
        engine: Engine,
        machine: Machine,
        *,
        instance: str,
        image: str,
        address: str,
        port: int,
        domain: str,
        key_file: Path,
    ) -> None:
        self._engine = engine
        self._machine = machine
        self._instance = instance
        self._image = image
        self._address = address or own_address()
        self._port = port
        self._domain = domain
        self._key_file = key_file
        self._api: HeadscaleApi | None = None
        self._user = ""
        self._error: str | None = "The coordinator has not been started yet."
        self._ensuring = anyio.Lock()

    @property
    def control_url(self) -> str | None:
        return f"http://{self._address}:{self._port}"

    @property
    def _name(self) -> str:
        return f"{self._instance}-coordinator"

    # --- the container

    async def ensure(self) -> None:
        async with self._ensuring:
            try:
                await self._ensure()
            except (TailnetError, EngineError, NotReady) as exc:
                self._error = exc.message
                raise
            self._error = None

    async def _ensure(self) -> None:
        spec = self._spec()
        present = await self._engine.inspect(self._name)
        same = present is not None and present.labels.get("perry.spec") == spec.labels["perry.spec"]
        if present is not None and present.running and same:
            await self._connect()
            return
        if await self._engine.image_id(self._image) is None:
            raise NotReady(f"The image {self._image} is not on this machine; build it with `perry agent build`.")
        if (present is None or not present.running) and not self._machine.port_is_free(self._address, self._port):
            raise TailnetUnavailable(
                f"Port {self._port} on {self._address} is taken, so the embedded coordinator cannot start; "
                "free it, or set tailnet.port (or tailnet.address) in config.json."
            )
        await self._disconnect()
        await self._engine.ensure_volume(self._name, self._labels())
        await self._engine.ensure_container(spec)
        config = File(path=f"{STATE}/config.yaml", content=self._config().encode(), mode=0o600)
        await self._engine.put_files(self._name, [config])
        await self._engine.start(self._name)
        await self._connect()

    def _labels(self) -> dict[str, str]:
        return {"perry.instance": self._instance, "perry.role": Role.COORDINATOR}

    def _spec(self) -> ContainerSpec:
        spec = ContainerSpec(
            name=self._name,
            image=self._image,
            labels={},
            command=("serve",),
            host_network=True,
            volumes=(VolumeMount(self._name, STATE),),
            cap_drop=("ALL",),
            security_opt=("no-new-privileges",),
            read_only=True,
            memory=MEMORY,
            pids=256,
            restart="unless-stopped",
            stop_seconds=3,
        )
        digest = hashlib.sha256(msgspec.json.encode(spec, order="deterministic") + self._config().encode())
        return msgspec.structs.replace(spec, labels={**self._labels(), "perry.spec": digest.hexdigest()[:16]})

    def _config(self) -> str:
        """JSON, which is YAML too."""
        listen = f"{self._address}:{self._port}"
        config: dict[str, Any] = {
            "server_url": self.control_url,
            "listen_addr": listen,
            "metrics_listen_addr": "127.0.0.1:0",
            "grpc_listen_addr": "127.0.0.1:0",
            "noise": {"private_key_path": f"{STATE}/noise_private.key"},
            "prefixes": {"v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48", "allocation": "sequential"},
            "derp": {
                "server": {
                    "enabled": True,
                    "region_id": 999,
                    "region_code": "perry",
                    "region_name": "Perry",
                    "stun_listen_addr": listen,
                    "private_key_path": f"{STATE}/derp_private.key",
                    "automatically_add_embedded_derp_region": True,
                    "verify_clients": True,
                    "ipv4": self._address,
                },
                "urls": [],
                "paths": [],
                "auto_update_enabled": False,
            },
            "disable_check_updates": True,
            "logtail": {"enabled": False},
            "database": {"type": "sqlite", "sqlite": {"path": f"{STATE}/db.sqlite", "write_ahead_log": True}},
            "log": {"level": "info"},
            "policy": {"mode": "database"},
            "dns": {
                "magic_dns": True,
                "base_domain": self._domain,
                "override_local_dns": False,
                "nameservers": {"global": []},
            },
            "unix_socket": SOCKET,
            "unix_socket_permission": "0700",
            # Every change of state waits for a batch otherwise: joining took 1.9 s with the defaults, 0.35 s so.
            "tuning": {"node_store_batch_timeout": "5ms", "batch_change_delay": "10ms"},
        }
        return json.dumps(config, indent=1)

    # --- the API

    async def _connect(self) -> None:
        """Have an API key that works, the owner's user and the policy."""
        if self._api is not None:
            with contextlib.suppress(Refused):
                await self._api.user_id(USER)
                return
            await self._disconnect()
        await self._wait_until_it_answers()
        api = HeadscaleApi(str(self.control_url), self._kept_key() or await self._new_key())
        try:
            try:
                self._user = await api.user_id(USER)
            except Refused:
                await api.close()
                api = HeadscaleApi(str(self.control_url), await self._new_key())
                self._user = await api.user_id(USER)
            wanted = json.dumps(POLICY, indent=1)
            if await api.policy() != wanted:
                await api.set_policy(wanted)
        except BaseException:
            await api.close()
            raise
        self._api = api

    async def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                async with await anyio.connect_tcp(self._address, self._port):
                    return
            except OSError:
                present = await self._engine.inspect(self._name)
                if present is None or (not present.running and present.status != "restarting"):
                    raise TailnetUnavailable(
                        f"The coordinator ended as soon as it started; `docker logs {self._name}` has its reasons."
                    ) from None
            if time.monotonic() > end:
                raise TailnetUnavailable(
                    f"The coordinator did not answer within {ANSWER_SECONDS} s; "
                    f"`docker logs {self._name}` has its reasons."
                )
            await anyio.sleep(0.05)

    def _kept_key(self) -> str | None:
        try:
            return self._key_file.read_text().strip() or None
        except FileNotFoundError:
            return None

    async def _new_key(self) -> str:
        """Made by its own command, by way of its socket; nobody outside of the container can ask for the first."""
        command = ["headscale", "-c", f"{STATE}/config.yaml", "apikeys", "create", "--expiration", KEY_LIFETIME]
        for _ in range(50):
            output = await self._engine.exec(self._name, command, limit=1 << 14)
            words = output.stdout.decode(errors="replace").split()
            if output.exit_code == 0 and words:
                break
            await anyio.sleep(0.1)
        else:
            said = (output.stderr or output.stdout).decode(errors="replace").strip()[-300:]
            raise TailnetUnavailable(f"The coordinator gave no API key: {said}")
        key = words[-1]
        self._key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self._key_file.with_suffix(".new")
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as opened:
            opened.write(key + "\n")
        partial.replace(self._key_file)
        return key

    async def _disconnect(self) -> None:
        if self._api is not None:
            await self._api.close()
            self._api = None

    async def close(self) -> None:
        await self._disconnect()

    async def remove(self) -> None:
        await self._disconnect()
        await self._engine.remove_container(self._name)
        await self._engine.remove_volume(self._name)
        self._key_file.unlink(missing_ok=True)

    async def _ready(self) -> HeadscaleApi:
        if self._api is None:
            await self.ensure()
        assert self._api is not None
        return self._api

    # --- the port

    async def info(self) -> TailnetInfo:
        return TailnetInfo(
            provider=self.provider,
            ready=self._error is None,
            control_url=self.control_url,
            domain=self._domain,
            owners=(USER,),
            error=self._error,
        )

    async def mint_workspace_key(self, *, seconds: int = 600) -> AuthKey:
        return await (await self._ready()).mint_key(user=None, tags=[WORKSPACE_TAG], seconds=seconds)

    async def mint_device_key(self, *, seconds: int = 3600) -> AuthKey:
        api = await self._ready()
        return await api.mint_key(user=self._user, tags=[], seconds=seconds)

    async def revoke_key(self, key_id: str) -> None:
        await (await self._ready()).delete_key(key_id)

    async def unused_keys(self) -> list[str] | None:
        now = datetime.now(UTC)
        keys = await (await self._ready()).keys()
        return [str(key["id"]) for key in keys if WORKSPACE_TAG in (key.get("aclTags") or ()) and usable(key, now)]

    async def nodes(self) -> list[Node]:
        return await (await self._ready()).nodes()

    async def node(self, node_id: str) -> Node | None:
        return await (await self._ready()).node(node_id)

    async def delete_node(self, node_id: str) -> None:
        await (await self._ready()).delete_node(node_id)


def own_address() -> str:
    """The IPv4 address by which this machine reaches others; that of Docker's own bridge where it reaches nobody."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((DOCUMENTATION_ADDRESS, 9))
        except OSError:
            return "172.17.0.1"
        address: str = probe.getsockname()[0]
        return address
