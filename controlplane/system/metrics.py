"""What ``/metrics`` shows, in Prometheus' text format."""

from collections import Counter as Count
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from protocol.version import VERSION
from protocol.workspaces import Workspace, WorkspaceStatus

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "WS"})


class Metrics:
    """Counts requests. What else there is, is asked for when somebody looks."""

    def __init__(self) -> None:
        disable_created_metrics()
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "perry_requests", "Requests answered.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "perry_request_seconds",
            "How long answers took.",
            ["route"],
            buckets=(0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120),
            registry=self._registry,
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered. ``route`` is a template: what a client makes up must not become a label."""
        self._requests.labels(method if method in _METHODS else "(other)", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def watch(self, workspaces: Callable[[], Sequence[Workspace]], subscribers: Callable[[], int]) -> None:
        """Show these too; both answer at once."""
        self._registry.register(_Gauges(workspaces, subscribers))

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self, workspaces: Callable[[], Sequence[Workspace]], subscribers: Callable[[], int]) -> None:
        self._workspaces = workspaces
        self._subscribers = subscribers

    def collect(self) -> Iterator[Metric]:
        count = Count(workspace.status for workspace in self._workspaces())
        workspaces = GaugeMetricFamily("perry_workspaces", "Workspaces by status.", labels=["status"])
        for status in WorkspaceStatus:
            workspaces.add_metric([status.value], count[status])
        yield workspaces
        yield GaugeMetricFamily("perry_event_subscribers", "Clients on /events.", value=self._subscribers())
        version = GaugeMetricFamily("perry_version", "The version that runs, as a label.", labels=["version"])
        version.add_metric([VERSION], 1)
        yield version
