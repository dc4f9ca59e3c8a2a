"""One system for all tests of a module, with two workspaces and a stock device of the owner on its tailnet; and whoever
is woken, for modules whose systems tell it of their work."""

from collections.abc import Iterator

import pytest

from protocol.workspaces import TailnetState, Workspace
from tests.e2e.system import Device, System, running
from tests.e2e.woken import Gateway, listening


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    yield from running(tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="module")
def alpha(system: System) -> Workspace:
    workspace = system.start_workspace("alpha")
    assert workspace.tailnet.status is TailnetState.ONLINE, workspace
    return workspace


@pytest.fixture(scope="module")
def beta(system: System) -> Workspace:
    return system.start_workspace("beta", docker=False)


@pytest.fixture(scope="module")
def laptop(system: System, alpha: Workspace, beta: Workspace) -> Device:
    device = system.device("laptop")
    device.join_as_owner()
    device.knows(alpha)
    device.knows(beta)
    return device


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with listening() as made:
        yield made
