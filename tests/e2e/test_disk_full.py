"""Docker's disk is full: one sentence, and nothing that stays behind."""

import os
from collections.abc import Iterator

import pytest

from protocol.workspaces import WorkspaceStatus
from tests.e2e.private_docker import PrivateDocker, private_docker
from tests.e2e.system import System, docker

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

SENTENCE = "no disk space left"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateDocker]:
    for engine in private_docker(tmp_path_factory.mktemp("docker"), megabytes=1000):
        engine.load_images("perry/sidecar:latest")
        # No workspace will get so far that it matters what is in it.
        docker("-H", engine.url, "tag", "perry/sidecar:latest", "perry/workspace-base:latest")
        yield engine


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, engine: PrivateDocker) -> Iterator[System]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", engine.url)
        system = System(tmp_path_factory.mktemp("agent"), host=engine.address, prefix=engine.prefix, tailnet="none")
        try:
            system.start()
            yield system
        finally:
            system.remove()


def test_a_start_says_it_and_a_deletion_leaves_nothing(system: System, engine: PrivateDocker) -> None:
    fill = engine.data / "fill"
    with fill.open("wb") as file:
        space = os.statvfs(engine.data)
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize)
    answer = system.raw("workspaces.start", {"name": "alpha"})
    assert answer.status_code >= 400 and SENTENCE in answer.json()["json"]["message"], answer.text
    stands = system.workspace("alpha")
    assert stands.status is WorkspaceStatus.ERROR and SENTENCE in (stands.error or "")
    said = system.perry("list").stdout
    assert "alpha" in said and "Traceback" not in system.log()
    system.call("workspaces.delete", {"name": "alpha", "force": True})
    assert system.objects() == []
    fill.unlink()
