"""Which local repositories travel, and what is said of what stays behind."""

import subprocess
from pathlib import Path

import pytest

from cli import bundle
from cli.errors import CliError, Misused


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "a").write_text("1")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "One")
    return folder


def test_all_of_it_travels(repository: Path) -> None:
    assert bundle.left_out(bundle.inspect(repository)).sentence() is None


def test_what_is_left_out_is_counted(repository: Path) -> None:
    (repository / "a").write_text("2")
    git(repository, "stash")
    (repository / "a").write_text("3")
    (repository / "b").write_text("3")
    (repository / "c").write_text("3")
    git(repository, "add", "b")
    assert bundle.left_out(bundle.inspect(repository)).sentence() == (
        "Not committed, so left out: 2 changed files, 1 untracked, 1 stash."
    )


def test_submodules_and_lfs_are_mentioned(repository: Path) -> None:
    git(repository, "submodule", "add", "-q", str(repository), "sub")
    (repository / ".gitattributes").write_text("*.bin filter=lfs\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "Two")
    sentence = bundle.left_out(bundle.inspect(repository)).sentence()
    assert sentence is not None
    assert "git submodule update --init" in sentence
    assert "git lfs pull" in sentence


def test_branches_and_tags_travel(repository: Path, tmp_path: Path) -> None:
    git(repository, "branch", "other")
    git(repository, "tag", "v1")
    found = bundle.inspect(repository)
    bundle.write(found, tmp_path / "b")
    heads = subprocess.run(
        ["git", "bundle", "list-heads", str(tmp_path / "b")], check=True, capture_output=True, text=True
    ).stdout
    refs = {line.split()[1] for line in heads.splitlines()}
    assert refs == {"HEAD", "refs/heads/main", "refs/heads/other", "refs/tags/v1"}
    assert bundle.branch_to_take(found, None) == "main"
    assert bundle.branch_to_take(found, "other") == "other"
    assert bundle.branch_to_take(found, "v1") == "v1"
    with pytest.raises(Misused, match="no branch or tag"):
        bundle.branch_to_take(found, "--upload-pack=x")


def test_a_detached_head_and_a_bare_repository(repository: Path, tmp_path: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    assert bundle.branch_to_take(bundle.inspect(repository), None) is None
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare.git")
    found = bundle.inspect(tmp_path / "bare.git")
    bundle.write(found, tmp_path / "b")
    assert (found.worktree, bundle.left_out(found).sentence(), found.origin) == (None, None, None)


def test_a_shallow_clone_is_refused_with_a_way_out(repository: Path, tmp_path: Path) -> None:
    (repository / "a").write_text("2")
    git(repository, "commit", "-qam", "Two")
    git(tmp_path, "clone", "-q", "--depth=1", repository.as_uri(), "shallow")
    with pytest.raises(Misused, match=r"shallow clone.*git fetch --unshallow"):
        bundle.inspect(tmp_path / "shallow")


def test_what_is_no_whole_repository(repository: Path, tmp_path: Path) -> None:
    (repository / "sub").mkdir()
    with pytest.raises(Misused, match=f"inside the repository {repository}"):
        bundle.inspect(repository / "sub")
    (tmp_path / "none").mkdir()
    with pytest.raises(Misused, match="no git repository"):
        bundle.inspect(tmp_path / "none")
    git(tmp_path / "none", "init", "-q")
    with pytest.raises(Misused, match="no commit yet"):
        bundle.inspect(tmp_path / "none")


def test_gits_own_variables_do_not_lead_astray(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert bundle.inspect(repository).worktree == repository


def test_folders_with_odd_names(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository.parent)
    for name in ("-x", "host:path", "https:", "$(touch x)"):
        repository = repository.rename(repository.parent / name)
        path = bundle.local_path(name)
        assert path == repository
        assert bundle.left_out(bundle.inspect(path)).sentence() is None


@pytest.mark.parametrize("clone", ["https://x/y", "git@host:a/b", "ssh://h/p", "host:path", "ext::sh", "upload:abc"])
def test_urls_are_left_alone(clone: str) -> None:
    assert bundle.local_path(clone) is None


@pytest.mark.parametrize("clone", ["file:///nowhere", "file://other/path", "nowhere", "./no:where", "-x"])
def test_what_is_neither(clone: str) -> None:
    with pytest.raises(Misused):
        bundle.local_path(clone)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@example.com/x.git", "https://example.com/x.git"),
        ("https://token@example.com:8443/x?private_token=y", "https://example.com:8443/x"),
        ("ssh://git:secret@example.com:22/x", "ssh://git@example.com:22/x"),
        ("git@example.com:x/y.git", "git@example.com:x/y.git"),
        ("https://example.com/x", "https://example.com/x"),
        ("/home/me/x", None),
        ("../x", None),
        ("file:///home/me/x", None),
        ("ext::sh -c id", None),
        ("-oProxyCommand=x:y", None),
    ],
)
def test_origins_lose_their_credentials(url: str, shown: str | None) -> None:
    assert bundle.without_credentials(url) == shown


def test_without_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CliError, match="git is not installed"):
        bundle.inspect(repository)
