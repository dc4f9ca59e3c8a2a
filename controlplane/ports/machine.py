"""The machine that the control plane runs on."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Machine(Protocol):
    """The machine that the control plane runs on."""

    def port_is_free(self, address: str, port: int) -> bool:
        """Whether a TCP port could be bound now."""

    def has_tun(self) -> bool:
        """Whether it has /dev/net/tun. Without it sidecars fall back to a network stack of their own."""

    def own_tailnet_addresses(self) -> tuple[str, ...]:
        """Addresses of this machine on a tailnet of its own (interface ``tailscale0`` or in 100.64.0.0/10)."""

    def upstream_dns(self) -> tuple[str, ...]:
        """Name servers that containers can reach; loopback ones are left out."""

    def added_ca_certificates(self) -> Mapping[str, bytes]:
        """File name to PEM of what the administrator added to the system's trust."""

    def authorized_keys(self) -> Sequence[str]:
        """Public keys that may log in to every workspace from its start: the control plane's own, where it has one."""

    async def ssh_answers(self, address: str, port: int) -> bool:
        """Whether an ssh server sends its banner there."""
