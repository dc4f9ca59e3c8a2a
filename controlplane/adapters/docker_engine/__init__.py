"""Docker, behind the port :class:`controlplane.ports.Engine`. The only place that knows aiodocker."""

from controlplane.adapters.docker_engine.engine import DockerEngine

__all__ = ["DockerEngine"]
