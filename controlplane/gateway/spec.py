"""What the gateway is made of. Pure."""

import hashlib

import msgspec

from controlplane.ports import GATEWAY_TAG, ContainerSpec, NetworkSpec, Node, Role, VolumeMount

HOSTNAME = "perry"
"""The control plane's name on the tailnet."""

STATE = "/var/lib/perry"
AUTH_KEY_FILE = f"{STATE}/auth-key"
RUN = "/run/perry"
OUT = "/run/perry-out"
FORWARD_SOCKET = "forward.sock"
PLACES_FILE = "places.json"
"""Where it connects to others on the tailnet for the control plane, and the list of those others."""

WIREGUARD_PORT = 41641

MEMORY = 384 * 1024 * 1024
GO_MEMORY = "160MiB"


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """``run_folder`` holds the control plane's socket, ``out_folder`` the gateway's own: all that it may write to."""

    instance: str
    image: str
    run_folder: str
    out_folder: str
    pool: str

    @property
    def name(self) -> str:
        """Of its container, its network and its volume."""
        return f"{self.instance}-gateway"

    @property
    def labels(self) -> dict[str, str]:
        return {"perry.instance": self.instance, "perry.role": Role.GATEWAY}


def network(settings: GatewaySettings, subnet: str) -> NetworkSpec:
    """A bridge of its own, named like the pods', so that the machine's rules let WireGuard through between them."""
    digest = hashlib.sha256(settings.name.encode()).hexdigest()[:8]
    return NetworkSpec(name=settings.name, subnet=subnet, interface=f"perry-{digest}", labels=settings.labels)


def container(settings: GatewaySettings, tailnet: str, control_url: str) -> ContainerSpec:
    """It needs no right on the machine: the sidecar's own network stack is enough for HTTP.

    ``DAC_OVERRIDE`` lets it into the socket's folder where that belongs to a person and not to root.
    """
    spec = ContainerSpec(
        name=settings.name,
        image=settings.image,
        labels={},
        command=("gateway",),
        network=settings.name,
        hostname=HOSTNAME,
        env={
            "PERRY_HOSTNAME": HOSTNAME,
            "PERRY_TAILNET_ID": tailnet,
            "PERRY_REQUIRED_TAG": GATEWAY_TAG,
            "PERRY_CONTROL_URL": control_url,
            "PERRY_STATE_DIR": STATE,
            "PERRY_SOCKET": f"{RUN}/control.sock",
            "PERRY_WAY_OUT": f"{OUT}/{FORWARD_SOCKET}",
            "PERRY_PLACES": f"{RUN}/{PLACES_FILE}",
            "PERRY_WIREGUARD_PORT": str(WIREGUARD_PORT),
            "GOMEMLIMIT": GO_MEMORY,
        },
        volumes=(
            VolumeMount(settings.name, STATE),
            VolumeMount(settings.run_folder, RUN, read_only=True),
            VolumeMount(settings.out_folder, OUT),
        ),
        cap_drop=("ALL",),
        cap_add=("DAC_OVERRIDE",),
        security_opt=("no-new-privileges",),
        read_only=True,
        memory=MEMORY,
        pids=256,
        restart="unless-stopped",
        stop_seconds=3,
    )
    digest = hashlib.sha256(msgspec.json.encode(spec, order="deterministic")).hexdigest()[:16]
    return msgspec.structs.replace(spec, labels={**settings.labels, "perry.spec": digest})


def is_gateway(node: Node | None) -> bool:
    """Whether a node is a gateway's. Ids do not tell: a coordinator that lost its memory counts from 1 again."""
    return node is not None and GATEWAY_TAG in node.tags
