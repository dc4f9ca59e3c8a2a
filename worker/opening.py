"""Opens files that a workspace's programs have made, so that nothing but a regular file of its place is ever read."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

_FOLDER: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


class NotRegular(OSError):
    """It is a symbolic link, a pipe, a socket, a device or a folder; or one of its folders is a link."""


def open_below(root: Path, path: str, *, flags: int = _FLAGS) -> int:
    """A descriptor of the regular file ``path``, below the folder ``root`` (which itself may be behind links).

    Each folder on the way is opened by itself, and none is a link: what is a file at one moment and a link at the next
    is not followed. Opening does not wait for anybody (a pipe without a writer).
    """
    below = os.path.relpath(path, root).split(os.sep)
    if os.pardir in below:
        raise NotRegular(errno.EPERM, "Not below its folder", path)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in below[:-1]:
            deeper = os.open(name, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = deeper
        fd = os.open(below[-1], flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
            raise NotRegular(error.errno, "Not a regular file", path) from error
        raise
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegular(errno.EPERM, "Not a regular file", path)
    return fd


def open_to_append(root: Path, path: str) -> int:
    """The same, to write at its end."""
    return open_below(root, path, flags=os.O_RDWR | os.O_APPEND | _FLAGS)
