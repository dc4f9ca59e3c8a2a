"""All couriers of wakes, side by side: a slow gateway delays no other."""

import anyio

from controlplane.wake.courier import Courier
from controlplane.wake.record import Record


class Forwarder:
    """All couriers, by the names of their gateways."""

    def __init__(self, couriers: dict[str, Courier], default: str) -> None:
        self.couriers = couriers
        self.default = default

    def arrived(self, record: Record) -> None:
        """A wake is in the outbox."""
        if (courier := self.couriers.get(record.gateway)) is not None:
            courier.put(record)

    def hurry(self) -> None:
        for courier in self.couriers.values():
            courier.hurry()

    def close(self) -> None:
        for courier in self.couriers.values():
            courier.close()

    async def run(self) -> None:
        """Until closed or cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._close_when_cancelled)
            async with anyio.create_task_group() as at_work:
                for courier in self.couriers.values():
                    at_work.start_soon(courier.run)
            tasks.cancel_scope.cancel()

    async def _close_when_cancelled(self) -> None:
        """Attempts are shielded: without this, whoever cancels would wait for a gateway that does not answer."""
        try:
            await anyio.sleep_forever()
        finally:
            self.close()
