"""What is built, in which order, and what makes an image stale."""

import tomllib
from pathlib import Path

import pytest

from controlplane.images.plan import IMAGES, SourceFile, digest, named, versions, with_base

FILES = [SourceFile("Dockerfile", b"FROM x\n"), SourceFile("run", b"#!/bin/sh\n", executable=True)]


def of(files: list[SourceFile] = FILES, **changed: object) -> str:
    values: dict[str, object] = {"args": {"NODE": "24"}, "architecture": "x86_64", "base": "b", "recipe": ["go ."]}
    return digest(files, **(values | changed))  # type: ignore[arg-type]


def test_equal_inputs_have_equal_digests_in_any_order() -> None:
    assert of() == of(list(reversed(FILES)))
    assert len(of()) == 32


@pytest.mark.parametrize(
    "other",
    [
        of([FILES[0]]),
        of([SourceFile("Dockerfile", b"FROM y\n"), FILES[1]]),
        of([FILES[0], SourceFile("run", b"#!/bin/sh\n")]),
        of([FILES[0], SourceFile("ran", b"#!/bin/sh\n", executable=True)]),
        of(args={"NODE": "25"}),
        of(args={}),
        of(architecture="aarch64"),
        of(base="c"),
        of(recipe=["go ./cmd"]),
    ],
)
def test_every_input_counts(other: str) -> None:
    assert other != of()


def test_all_images_are_built_when_none_is_named_and_base_comes_first() -> None:
    assert with_base(named([])) == IMAGES
    assert IMAGES[0].name == "base"


@pytest.mark.parametrize("name", ["sidecar", "perry/sidecar", "perry/sidecar:latest"])
def test_an_image_goes_by_name_or_tag_and_brings_base(name: str) -> None:
    assert [plan.name for plan in with_base(named([name]))] == ["base", "sidecar"]


def test_a_workspace_brings_the_worker() -> None:
    assert [plan.name for plan in with_base(named(["workspace-base"]))] == ["base", "worker", "workspace-base"]


def test_the_worker_has_what_the_control_plane_has() -> None:
    """Both ends of the stream stand on the same versions, and those on the lock's."""
    checkout = Path(__file__).parents[3]
    pinned = versions((checkout / "images/worker/versions.env").read_text())
    locked = {
        package["name"]: package["version"] for package in tomllib.loads((checkout / "uv.lock").read_text())["package"]
    }
    assert pinned
    assert pinned == {name: locked[name.removesuffix("_VERSION").lower().replace("_", "-")] for name in pinned}


def test_base_needs_nothing_else() -> None:
    assert [plan.name for plan in with_base(named(["base"]))] == ["base"]


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(KeyError, match="nosuch"):
        named(["sidecar", "nosuch"])


def test_versions_are_read_and_a_line_that_is_none_is_told() -> None:
    assert versions("# why\n\nNODE_VERSION=24.1\nX=1\n") == {"NODE_VERSION": "24.1", "X": "1"}
    for wrong in ("NODE 24", "NODE=", "NO-DE=1", "NODE= 24"):
        with pytest.raises(ValueError, match=wrong):
            versions(f"OK=1\n{wrong}\n")
