"""Fills a new volume with what the image has at the mount point: content, owners, modes, times, extended attributes, links, devices.

Both trees are walked by descriptors and no symlink is ever followed, since the image decides what is in the source. The volume's own
directory takes
the owner and mode of the image's, even where there is nothing to copy: it is what lets a user who is not root write to a fresh volume.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from atoll.errors import SystemFailure

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20  # bytes
_OVERLAY = ("trusted.overlay.", "user.overlay.")  # say something about a layer, not about the file


@dataclass(slots=True)
class _Level:
    """A directory being copied; its own status is set when its content is there, so that neither mode nor times get in the way."""

    source: int
    target: int
    path: str  # below the volume's root
    status: os.stat_result
    entries: Iterator[str]


def copy_up(source_fd: int, target: Path) -> bool:
    """Copies the directory open at `source_fd` into the empty directory `target`.

    The caller opens `source_fd` inside the image's root by openat2. Answers False, and changes nothing, where `target` is not empty. Raises
    SystemFailure; what was copied until then stays.
    """
    if os.listdir(target):
        return False
    try:
        _copy_tree(source_fd, target)
    except OSError as error:
        raise SystemFailure(f"copy the image's content into {target}", error.errno or 0) from error
    return True


def _copy_tree(source_fd: int, target: Path) -> None:
    links: dict[tuple[int, int], str] = {}
    with contextlib.ExitStack() as stack:
        root = os.open(target, _OPEN_DIRECTORY)
        stack.callback(os.close, root)
        levels = [_level(os.open(".", _OPEN_DIRECTORY, dir_fd=source_fd), os.dup(root), "")]
        stack.callback(_close_all, levels)
        while levels:
            level = levels[-1]
            name = next(level.entries, None)
            if name is None:
                _finish(level)
                _close_all([levels.pop()])
                continue
            status = os.stat(name, dir_fd=level.source, follow_symlinks=False)
            path = f"{level.path}{name}"
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(name, 0o700, dir_fd=level.target)
                levels.append(
                    _level(
                        os.open(name, _OPEN_DIRECTORY, dir_fd=level.source), os.open(name, _OPEN_DIRECTORY, dir_fd=level.target), path + "/"
                    )
                )
            elif (known := links.get((status.st_dev, status.st_ino))) is not None:
                os.link(known, name, src_dir_fd=root, dst_dir_fd=level.target, follow_symlinks=False)
            elif _copy_entry(level, name, status) and status.st_nlink > 1:
                links[status.st_dev, status.st_ino] = path


def _level(source: int, target: int, path: str) -> _Level:
    return _Level(source, target, path, os.fstat(source), iter(os.listdir(source)))


def _close_all(levels: list[_Level]) -> None:
    for level in levels:
        os.close(level.source)
        os.close(level.target)


def _copy_entry(level: _Level, name: str, status: os.stat_result) -> bool:
    """Anything but a directory. False where there is nothing to copy: a socket is nothing without its program."""
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        _copy_file(level, name, status)
        return True
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=level.source), name, dir_fd=level.target)
    elif kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK):
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=level.target)
    else:
        return False
    os.chown(name, status.st_uid, status.st_gid, dir_fd=level.target, follow_symlinks=False)
    if kind != stat.S_IFLNK:
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=level.target)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=level.target, follow_symlinks=False)
    return True


def _copy_file(level: _Level, name: str, status: os.stat_result) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=level.source)
    try:
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=level.target)
        try:
            while os.sendfile(target, source, None, _CHUNK):
                pass
            _dress(source, target, status)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _finish(level: _Level) -> None:
    _dress(level.source, level.target, level.status)


def _dress(source: int, target: int, status: os.stat_result) -> None:
    """Owner first: changing it clears set-uid bits and file capabilities."""
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    try:
        names = [name for name in os.listxattr(source) if not name.startswith(_OVERLAY)]
        for name in names:
            os.setxattr(target, name, os.getxattr(source, name))
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):  # a file system without them; a namespace of them we may not write
            raise
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
