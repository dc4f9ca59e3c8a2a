"""What the control plane needs from outside systems, in its own words; import all of it from here.

Each outside system's port has one real adapter at least (``controlplane/adapters``), a fake for unit tests
(``tests/fakes``) and one contract test that holds both to the same behaviour (``tests/contract``). Verbs are
idempotent: what is asked for twice succeeds twice, and removing what is gone succeeds.

============== ===================================================================
``containers`` what Docker's objects are made of, and how they stand: values
``engine``     Docker, running them
``images``     Docker, building images
``tailnet``    the coordinator of a tailnet, its nodes and keys
``workers``    streams to the workers in workspaces, who keeps them and who listens
``machine``    the machine that all of this runs on
``features``   what features ask of others that stand above them
============== ===================================================================
"""

from controlplane.ports.containers import (
    ContainerSpec,
    ContainerState,
    EngineEvent,
    EngineInfo,
    ExecOutput,
    File,
    LogEntry,
    NetworkSpec,
    NetworkState,
    PortBinding,
    Role,
    VolumeMount,
    VolumeState,
)
from controlplane.ports.engine import Engine, Process
from controlplane.ports.features import Provisions, Uploads, Waker
from controlplane.ports.images import ImageBuilder, ImageState
from controlplane.ports.machine import Machine
from controlplane.ports.tailnet import (
    GATEWAY_TAG,
    WORKSPACE_TAG,
    AuthKey,
    Node,
    Tailnet,
    TailnetInfo,
    is_node_of,
)
from controlplane.ports.workers import WorkerFollower, WorkerKeeper, WorkerLink, Workers

__all__ = [
    "GATEWAY_TAG",
    "WORKSPACE_TAG",
    "AuthKey",
    "ContainerSpec",
    "ContainerState",
    "Engine",
    "EngineEvent",
    "EngineInfo",
    "ExecOutput",
    "File",
    "ImageBuilder",
    "ImageState",
    "LogEntry",
    "Machine",
    "NetworkSpec",
    "NetworkState",
    "Node",
    "PortBinding",
    "Process",
    "Provisions",
    "Role",
    "Tailnet",
    "TailnetInfo",
    "Uploads",
    "VolumeMount",
    "VolumeState",
    "Waker",
    "WorkerFollower",
    "WorkerKeeper",
    "WorkerLink",
    "Workers",
    "is_node_of",
]
