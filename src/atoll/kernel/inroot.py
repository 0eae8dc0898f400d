"""Work inside a container's root from outside it, never leaving it: the one helper for the whole class of path holes.

Everything resolves by openat2 with RESOLVE_IN_ROOT: "..", absolute symlinks and races end inside the root. Directories are made one
component at a time, each opened before the next.
"""

from __future__ import annotations

import errno
import os
import stat

from atoll.kernel.openat2 import O_PATH, open_in_root

DIRECTORY_MODE = 0o755
_LINKS_MAX = 40  # the kernel's own limit


def open_path(root: int, path: str) -> int:
    """An O_PATH descriptor of what is there, last symlink followed. Raises FileNotFoundError and kin."""
    return open_in_root(root, path, O_PATH)


def make_directory(root: int, path: str, mode: int = DIRECTORY_MODE) -> int:
    """As mkdir -p, inside the root; returns an O_PATH descriptor of the last one. Existing symlinks are followed, inside the root."""
    try:
        return open_in_root(root, path, O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        parent, name = _split(path)
    if not name:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    directory = make_directory(root, parent, mode)
    try:
        for _ in range(_LINKS_MAX):
            try:
                os.mkdir(name, mode, dir_fd=directory)
                break
            except FileExistsError:
                # A symlink that leads nowhere yet: what it names is made in its place, still inside the root.
                if not stat.S_ISLNK(os.lstat(name, dir_fd=directory).st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
                return make_directory(root, os.path.join(parent, os.readlink(name, dir_fd=directory)), mode)
    finally:
        os.close(directory)
    return open_in_root(root, path, O_PATH | os.O_DIRECTORY)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """An O_PATH descriptor of the file, made empty, with its directories, when it is not there. Never opens a device or a fifo."""
    try:
        return open_path(root, path)
    except FileNotFoundError:
        parent, name = _split(path)
    directory = make_directory(root, parent)
    try:
        fd = open_in_root(root, path, os.O_CREAT | os.O_WRONLY | os.O_NONBLOCK, mode) if name else -1
    finally:
        os.close(directory)
    if fd < 0:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    os.close(fd)
    return open_path(root, path)


def make_parent(root: int, path: str) -> tuple[int, str]:
    """The directory that `path` lies in (O_PATH, made if need be) and the last name."""
    parent, name = _split(path)
    return make_directory(root, parent), name


def write(root: int, path: str, content: bytes) -> None:
    """Write an existing file."""
    fd = open_in_root(root, path, os.O_WRONLY)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def read(root: int, path: str, limit: int) -> bytes:
    """At most `limit` bytes of a regular file. Raises FileNotFoundError; anything but a regular file counts as not there."""
    fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
        return os.pread(fd, limit, 0)
    finally:
        os.close(fd)


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rstrip("/").rpartition("/")
    return parent or "/", name
