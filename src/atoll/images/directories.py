"""The directories of a tree that is being unpacked: kept open, made where an archive leaves them unsaid, given their attributes last.

A directory is opened from its parent's descriptor where that one is known, else by the kernel with the tree as its root; never through a
symlink that leads out. Each member made in a directory changes its times, so attributes wait for the end.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from atoll.errors import InvalidInput
from atoll.images.tar import Entry, Kind
from atoll.images.treewalk import OPAQUE
from atoll.kernel.openat2 import open_in_root

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_CHILD = DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_MAX = 64  # archives come in the order of a walk: a few ancestors are enough
_UNMADE_MODE = 0o755


class Directories:
    """`root`: a descriptor, the caller's. `lowers`: the layers beneath, top first. `whiteouts`: paths this layer hides by a device."""

    def __init__(self, root: int, lowers: Sequence[Path]) -> None:
        self.root = root
        self.lowers = [os.open(path, DIRECTORY | os.O_CLOEXEC) for path in lowers]
        self.whiteouts: set[bytes] = set()
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self._stale: list[int] = []  # forgotten, but a caller may still hold one: closed with the next entry
        self._pending: dict[bytes, Entry] = {}

    def close(self) -> None:
        self.forget_open()
        for fd in (*self._stale, *self.lowers):
            os.close(fd)

    def close_stale(self) -> None:
        """To be called when nobody holds a descriptor of `open` any more."""
        while self._stale:
            os.close(self._stale.pop())

    def open(self, path: bytes) -> int:
        """A descriptor of the directory, made with its parents where missing. It stays ours to close."""
        if not path:
            return self.root
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        try:
            fd = self._open_present(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            fd = self._make(path)
        self._open[path] = fd
        if len(self._open) > _OPEN_MAX:
            self._stale.append(self._open.popitem(last=False)[1])
        return fd

    def open_again(self, path: bytes) -> int:
        """A descriptor of the directory itself, the caller's. Raises OSError where it is none, or lies behind a symlink at its end."""
        return open_in_root(self.root, path or b".", DIRECTORY | os.O_NOFOLLOW)

    def forget_open(self) -> None:
        # Through symlinks one directory has many names, so one removal forgets them all.
        self._stale.extend(self._open.values())
        self._open.clear()

    # attributes ----------------------------------------------------------------------------------------------------------------------
    def dress_later(self, path: bytes, entry: Entry) -> None:
        self._pending.pop(path, None)  # the last word counts, and in its place: children before parents
        self._pending[path] = entry

    def removed(self, path: bytes) -> None:
        """The directory is gone with all below it."""
        self.forget_open()
        for gone in [known for known in self._pending if known == path or known.startswith(path + b"/")]:
            del self._pending[gone]

    def pending(self) -> list[tuple[bytes, Entry]]:
        """What is to be dressed, children before parents."""
        return list(reversed(self._pending.items()))

    # making --------------------------------------------------------------------------------------------------------------------------
    def _open_present(self, path: bytes) -> int:
        directory, _, name = path.rpartition(b"/")
        parent = self._open.get(directory) if directory else self.root
        if parent is not None:
            try:
                return os.open(name, _CHILD, dir_fd=parent)
            except OSError:
                pass  # a symlink, or nothing: the kernel's walk from the root tells
        return open_in_root(self.root, path, DIRECTORY)

    def _make(self, path: bytes) -> int:
        directory, _, name = path.rpartition(b"/")
        parent = self.open(directory)
        try:
            os.mkdir(name, _UNMADE_MODE, dir_fd=parent)
        except FileExistsError:
            if path not in self.whiteouts:
                raise InvalidInput(f"{path.decode('utf-8', 'backslashreplace')} is not a directory here") from None
            os.unlink(name, dir_fd=parent)
            self.forget_open()
            self.whiteouts.discard(path)
            os.mkdir(name, _UNMADE_MODE, dir_fd=parent)
            fd = open_in_root(self.root, path, DIRECTORY)
            os.setxattr(fd, OPAQUE, b"y")
            return fd
        if path not in self._pending and (like := self._below(path)) is not None:
            self._pending[path] = like
        return open_in_root(self.root, path, DIRECTORY)

    def _below(self, path: bytes) -> Entry | None:
        """The attributes the lower layers give a directory."""
        for lower in self.lowers:
            try:
                fd = open_in_root(lower, path, DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                info = os.fstat(fd)
                xattrs = {key: os.getxattr(fd, key) for key in os.listxattr(fd)}
            finally:
                os.close(fd)
            return Entry(path, Kind.DIRECTORY, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, 0, info.st_mtime_ns, xattrs=xattrs)
        return None
