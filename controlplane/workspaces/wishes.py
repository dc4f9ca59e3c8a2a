"""What is asked of a workspace at a start: whether it makes sense, and what it comes to. Pure."""

import re

import msgspec

from controlplane.errors import InvalidInput
from controlplane.ports import EngineInfo
from controlplane.settings import WorkspaceSettings
from controlplane.workspaces import repository, spec
from controlplane.workspaces.spec import Request
from protocol.workspaces import UPLOADED, Limits, StartWorkspace

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")


def must_make_sense(wanted: StartWorkspace) -> None:
    """InvalidInput, with a sentence, where nothing could ever come of it."""
    if wanted.clone is not None:
        repository.valid_clone(wanted.clone)
    for branch in (wanted.branch, wanted.new_branch):
        if branch is not None:
            repository.valid_branch(branch)
    if wanted.origin is not None:
        repository.valid_clone(wanted.origin)
    if wanted.image is not None and not _IMAGE.fullmatch(wanted.image):
        raise InvalidInput(f"{wanted.image[:200]!r} is no name of an image; give one such as own/image:tag.")
    if (wanted.branch is not None or wanted.new_branch is not None) and wanted.clone is None:
        raise InvalidInput("--branch says which branch of --clone to take; give both.")
    if wanted.no_clone and wanted.clone is not None:
        raise InvalidInput("--no-clone takes an earlier --clone back; give one of them.")


def first(wanted: StartWorkspace, defaults: WorkspaceSettings, info: EngineInfo, made_for: str | None) -> Request:
    """What a new workspace is to be. ``made_for`` is the id of the task that it is made for, if it is for one."""
    return Request(
        image=wanted.image or defaults.image,
        docker=defaults.docker if wanted.docker is None else wanted.docker,
        limits=spec.default_limits(
            wanted.cpus or defaults.cpus,
            wanted.memory or defaults.memory,
            wanted.pids or defaults.pids,
            info.cpus,
            info.memory,
        ),
        clone=wanted.clone,
        branch=wanted.branch,
        new_branch=wanted.new_branch,
        origin=wanted.origin,
        made_for=made_for,
    )


def once_more(before: Request, wanted: StartWorkspace) -> Request:
    """What was asked for before, with what is asked for now. A new repository brings its own branch and origin."""
    limits = Limits(
        cpus=wanted.cpus or before.limits.cpus,
        memory=wanted.memory or before.limits.memory,
        pids=wanted.pids or before.limits.pids,
    )
    after = msgspec.structs.replace(
        before,
        image=wanted.image or before.image,
        docker=before.docker if wanted.docker is None else wanted.docker,
        limits=limits,
    )
    if wanted.no_clone and not before.cloned:
        return msgspec.structs.replace(after, clone=None, branch=None, new_branch=None, origin=None)
    if wanted.clone is None:
        return after
    return msgspec.structs.replace(
        after,
        clone=wanted.clone,
        branch=wanted.branch,
        new_branch=wanted.new_branch,
        origin=wanted.origin,
        cloned=False,
    )


def recreates(before: Request, after: Request) -> bool:
    """Whether the container has to be made anew for it."""
    return (before.image, before.docker, before.limits) != (after.image, after.docker, after.limits)


def shown_repository(request: Request) -> str | None:
    """What is cloned, for people: no credentials, and of what was sent ahead where it came from."""
    if request.clone is None:
        return None
    if request.clone.startswith(UPLOADED):
        return request.origin
    return repository.shown(request.clone)
