"""Which changes on this machine mean something for workspaces."""

from pathlib import Path

from controlplane.credentials.watcher import Concerns


def test_a_source_what_is_in_it_and_the_folders_that_it_may_be_in(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles/gitconfig"
    real.parent.mkdir()
    real.write_text("")
    linked = tmp_path / "home/.gitconfig"
    linked.parent.mkdir()
    linked.symlink_to(real)
    concerns = Concerns([linked, tmp_path / "home/.config/perry"])
    assert all(
        concerns(str(tmp_path / each))
        for each in ("home/.gitconfig", "dotfiles/gitconfig", "home/.config/perry/a/b", "home/.config", "home")
    )
    assert not any(
        concerns(str(tmp_path / each))
        for each in ("home/.gitconfig~", "dotfiles", "home/.config/perryx", "home/.config/state.db-wal")
    )
