"""The use case of building, with Docker in memory and scripts in place of Go and mmdebstrap."""

import stat
from pathlib import Path

import anyio
import pytest

from controlplane.errors import EngineError, InvalidInput, NotReady, StepFailed
from controlplane.images.plan import IMPORTED_ROOTFS, ORIGIN_LABEL, REGISTRY_ROOTFS, SOURCE_LABEL, WORKER_LABEL
from controlplane.images.service import BuildReport, BuiltImage, build_images
from tests.fakes.images import FakeImages

CERTIFICATES = {"company.crt": b"-----BEGIN CERTIFICATE-----\n"}

EVERY = {"base", "worker", "workspace-base", "sidecar", "headscale", "device"}

FAKE_GO = """#!/bin/sh
echo "$PWD $*" >>"$GO_CALLS"
while [ "$1" != -o ]; do shift; done
[ -z "$GO_FAILS" ] || { echo "main.go:1: it does not compile"; exit 1; }
echo "program $3" >"$2"
"""

FAKE_MMDEBSTRAP = """#!/bin/sh
for last; do :; done
[ -z "$DEBIAN_FAILS" ] || { echo "E: no mirror"; exit 100; }
echo rootfs >"$last"
"""


class Case:
    """A checkout with all that an image needs, and the tools beside it."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.tools = folder / "bin"
        self.calls = folder / "calls"
        self.reports: list[BuildReport] = []
        self.images = FakeImages(registry=(REGISTRY_ROOTFS,))
        self.env = {"PATH": f"{self.tools}:/usr/bin:/bin", "GO_CALLS": str(self.calls)}
        for image in ("base", "worker", "workspace", "sidecar", "headscale", "device"):
            self.write(f"images/{image}/Dockerfile", f"FROM {image}\n")
        self.write("images/workspace/versions.env", "NODE_VERSION=24\n")
        for module in ("sidecar", "images/headscale"):
            self.write(f"{module}/go.mod", "module x\n")
        self.write("sidecar/main.go", "package main\n")
        self.write("worker/app.py", "pass\n")
        self.write("protocol/wire.py", "pass\n")
        self.tool("go", FAKE_GO)
        self.tool("mmdebstrap", FAKE_MMDEBSTRAP)

    def write(self, path: str, text: str) -> None:
        file = self.checkout / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def tool(self, name: str, script: str) -> None:
        self.tools.mkdir(exist_ok=True)
        path = self.tools / name
        path.write_text(script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    async def build(self, *names: str, no_cache: bool = False) -> dict[str, BuiltImage]:
        built = await build_images(
            checkout=self.checkout,
            builder=self.images,
            certificates=CERTIFICATES,
            env=self.env,
            report=self.reports.append,
            names=names,
            no_cache=no_cache,
        )
        return {image.name: image for image in built}

    async def rebuilt(self) -> set[str]:
        return {name for name, image in (await self.build()).items() if image.built}

    def steps(self) -> str:
        return "\n".join(report.text for report in self.reports if report.kind == "step")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


async def test_everything_is_built_once_base_first_and_then_nothing(case: Case) -> None:
    assert await case.rebuilt() == EVERY
    assert case.images.builds[0].tag == "perry/base:latest"
    before = len(case.images.builds), case.calls.read_text()
    assert await case.rebuilt() == set()
    assert (len(case.images.builds), case.calls.read_text()) == before


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("images/base/Dockerfile", EVERY),
        ("images/worker/Dockerfile", {"worker", "workspace-base"}),
        ("worker/sessions/new.py", {"worker", "workspace-base"}),
        ("protocol/wire.py", {"worker", "workspace-base"}),
        ("protocol/openapi.json", set()),
        ("images/workspace/versions.env", {"workspace-base"}),
        ("images/workspace/rootfs/etc/new", {"workspace-base"}),
        ("sidecar/main.go", {"sidecar"}),
        ("sidecar/main_test.go", set()),
        ("images/workspace/README.md", set()),
        ("sidecar/go.mod", {"sidecar", "device"}),
        ("images/headscale/go.mod", {"headscale"}),
        ("images/device/Dockerfile", {"device"}),
    ],
)
async def test_a_change_rebuilds_what_it_makes_stale(case: Case, path: str, expected: set[str]) -> None:
    await case.build()
    case.write(path, "CHANGED=1\n")
    assert await case.rebuilt() == expected


async def test_contexts_hold_certificates_versions_and_binaries(case: Case) -> None:
    await case.build()
    builds = {build.tag: build for build in case.images.builds}
    assert builds["perry/base:latest"].files["certificates/company.crt"] == CERTIFICATES["company.crt"]
    assert builds["perry/workspace-base:latest"].args["NODE_VERSION"] == "24"
    assert builds["perry/sidecar:latest"].files["perry-sidecar"] == b"program .\n"
    assert builds["perry/device:latest"].files["tailscaled"] == b"program tailscale.com/cmd/tailscaled\n"
    assert all(build.labels[SOURCE_LABEL] for build in case.images.builds)


async def test_a_workspace_has_the_worker_of_that_moment(case: Case) -> None:
    await case.build()
    builds = {build.tag: build for build in case.images.builds}
    worker = builds["perry/worker:latest"]
    assert worker.files["worker/app.py"] == worker.files["protocol/wire.py"] == b"pass\n"
    assert worker.args["PERRY_VERSION"] == worker.labels[WORKER_LABEL] == worker.labels[SOURCE_LABEL][:16]
    assert builds["perry/workspace-base:latest"].labels[WORKER_LABEL] == worker.labels[WORKER_LABEL]
    assert list(builds).index("perry/worker:latest") < list(builds).index("perry/workspace-base:latest")
    case.write("worker/app.py", "more\n")
    await case.build()
    assert case.images.builds[-1].labels[WORKER_LABEL] != worker.labels[WORKER_LABEL]


async def test_the_base_comes_from_a_registry_where_one_answers(case: Case) -> None:
    await case.build("base")
    build = case.images.builds[0]
    assert build.args["PERRY_ROOTFS"] == REGISTRY_ROOTFS
    assert build.labels[ORIGIN_LABEL] == "registry"
    assert "container registry's debian:trixie-slim" in case.steps()


async def test_the_base_comes_from_debians_packages_where_none_answers(case: Case) -> None:
    case.images.registry = ()
    await case.build("base")
    build = case.images.builds[0]
    assert build.args["PERRY_ROOTFS"] == IMPORTED_ROOTFS
    assert build.labels[ORIGIN_LABEL] == "debian-packages"
    assert "no container registry answers" in case.steps()
    # What was imported serves the next build.
    case.write("images/base/Dockerfile", "FROM other\n")
    await case.build("base")
    assert case.images.imported == [IMPORTED_ROOTFS]


async def test_no_cache_builds_what_was_named_afresh_and_no_more(case: Case) -> None:
    await case.build()
    built = await case.build("workspace-base", no_cache=True)
    assert {name: image.built for name, image in built.items()} == {
        "base": False,
        "worker": False,
        "workspace-base": True,
    }
    assert case.images.builds[-1].no_cache
    await case.build("base", no_cache=True)
    assert case.images.pulled == [REGISTRY_ROOTFS] * 2


async def test_proxies_reach_the_build_and_nothing_else_of_the_environment(case: Case) -> None:
    case.env |= {"https_proxy": "http://proxy:3128", "SECRET": "s"}
    await case.build("base")
    assert case.images.builds[0].args == {"PERRY_ROOTFS": REGISTRY_ROOTFS, "https_proxy": "http://proxy:3128"}


async def test_failures_are_sentences_and_leave_what_was_done(case: Case) -> None:
    case.images.broken.add("perry/headscale:latest")
    with pytest.raises(EngineError, match="perry/headscale:latest was not built"):
        await case.build("headscale")
    assert await case.images.image("perry/base:latest") is not None
    case.images.broken.clear()
    assert (await case.build("headscale"))["headscale"].built


async def test_a_program_that_does_not_compile_says_why(case: Case) -> None:
    case.env["GO_FAILS"] = "1"
    with pytest.raises(StepFailed, match=r"Go could not build perry-sidecar: main.go:1: it does not compile$"):
        await case.build("sidecar")


async def test_debians_failure_says_why(case: Case) -> None:
    case.images.registry = ()
    case.env["DEBIAN_FAILS"] = "1"
    with pytest.raises(StepFailed, match="E: no mirror"):
        await case.build("base")


@pytest.mark.parametrize(("missing", "hint"), [("go", "No Go toolchain"), ("mmdebstrap", "apt-get install mmdebstrap")])
async def test_a_missing_tool_is_named(case: Case, missing: str, hint: str) -> None:
    case.images.registry = ()
    (case.tools / missing).unlink()
    case.env["PATH"] = f"{case.tools}"
    with pytest.raises(NotReady, match=hint):
        await case.build("sidecar")


async def test_the_checkouts_own_go_serves_where_the_machine_has_none(case: Case) -> None:
    own = case.checkout / ".build/go/bin"
    own.mkdir(parents=True)
    (case.tools / "go").rename(own / "go")
    case.env["PATH"] = f"{case.tools}"
    assert (await case.build("sidecar"))["sidecar"].built


async def test_an_unknown_image_and_a_broken_checkout_are_told(case: Case) -> None:
    with pytest.raises(InvalidInput, match="no image 'nosuch'; there are base, worker, workspace-base"):
        await case.build("nosuch")
    (case.checkout / "images/device/Dockerfile").unlink()
    with pytest.raises(NotReady, match="device/Dockerfile is missing"):
        await case.build("base", "device")
    assert case.images.builds == []


async def test_two_builds_of_a_checkout_take_turns(case: Case) -> None:
    async with anyio.create_task_group() as both:
        both.start_soon(case.build, "sidecar")
        both.start_soon(case.build, "sidecar")
    assert [build.tag for build in case.images.builds] == ["perry/base:latest", "perry/sidecar:latest"]
    assert "waiting for another build" in case.steps()
