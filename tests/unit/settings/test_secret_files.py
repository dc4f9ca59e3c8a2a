"""Files with secrets are for their owner alone."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.errors import NotReady
from controlplane.secret_files import read_secret


def test_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch(mode=0o600)
    file.write_text("\n hello-secret \n")
    assert read_secret(file) == "hello-secret"
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_secret(link) == "hello-secret"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda file: None, r"does not exist; .*umask 077; cat > '\S*/a file'"),
        (lambda file: file.mkdir(), "is no file"),
        (lambda file: os.mkfifo(file, 0o600), "is no file"),
        (lambda file: file.write_text("x"), r"can be read by others; mend that with `chmod 600 '\S*/a file'`"),
        (lambda file: _private(file, b""), "holds no secret"),
        (lambda file: _private(file, b"two words"), "has to be one line"),
        (lambda file: _private(file, b"two\nlines"), "has to be one line"),
        (lambda file: _private(file, b"\xff\xfe\x00"), "holds no secret"),
        (lambda file: _private(file, b"x" * 70000), "holds no secret"),
    ],
)
def test_what_cannot_be_used_is_said_with_what_mends_it(
    tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    file = tmp_path / "a file"
    make(file)
    with pytest.raises(NotReady, match=says):
        read_secret(file)


def _private(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(content)
