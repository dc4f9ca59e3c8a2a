"""A machine on which every port is free and ssh answers at once."""

from collections.abc import Callable, Mapping, Sequence

from controlplane.ports import Machine


class FakeMachine:
    """``answers`` decides whether ssh answers on a port."""

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.answers: Callable[[int], bool] = lambda port: True

    def port_is_free(self, address: str, port: int) -> bool:
        return port not in self.taken

    def has_tun(self) -> bool:
        return True

    def own_tailnet_addresses(self) -> tuple[str, ...]:
        return ()

    def upstream_dns(self) -> tuple[str, ...]:
        return ("192.0.2.53",)

    def added_ca_certificates(self) -> Mapping[str, bytes]:
        return {}

    def authorized_keys(self) -> Sequence[str]:
        return ("ssh-ed25519 AAAA fake",)

    async def ssh_answers(self, address: str, port: int) -> bool:
        return self.answers(port)


_typed: type[Machine] = FakeMachine
