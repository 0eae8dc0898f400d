"""Packs a directory tree as a tar, in one deterministic order.

For a layer the marks of overlayfs become the whiteouts of image-spec layer.md. The tree may belong to a running container: every step goes
by descriptor and follows no symlink, sockets are left out (tar has none), a file that shrinks while it is read is filled with zeros, one
that grows is cut, one that vanishes is skipped.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass

from atoll.errors import NotSupported, SystemFailure
from atoll.images.attributes import XATTRS_KEPT
from atoll.images.extract import WHITEOUT, WHITEOUT_OPAQUE
from atoll.images.tar import Entry, Kind
from atoll.images.tarheader import TRAILER, encode, padding
from atoll.images.treewalk import OPAQUE, is_whiteout
from atoll.kernel.openat2 import open_in_root

PIECE = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFIFO: Kind.FIFO,
}
_NEEDS_LOWER = ("trusted.overlay.redirect", "trusted.overlay.metacopy")
_GONE = (errno.ENOENT, errno.ESTALE, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)


@dataclass(slots=True)
class Packed:
    """Sums up as the tar is read: bytes of regular files, and of the tar itself."""

    size: int = 0
    tar_size: int = 0


def pack_tree(root: int, *, layer: bool = False, ignore: Collection[str] = (), packed: Packed | None = None) -> Iterator[bytes]:
    """The tar of all that is below the directory `root`, without the root itself.

    `layer`: the tree is an overlay upper or an unpacked layer, to be written with whiteouts. `ignore`: paths ("etc/hosts") left out
    with all below them. Blocks. Raises SystemFailure, and NotSupported for an upper whose files lie partly in the layer beneath.
    """
    return _Packer(layer, frozenset(os.fsencode(path) for path in ignore), packed or Packed()).pack(os.dup(root), b"")


def pack_path(root: int, path: str, name: str, *, ignore: Collection[str] = ()) -> Iterator[bytes]:
    """The tar of one file or tree at `path` below `root`, called `name` in the archive (`docker cp` out of a container).

    A symlink at the end of `path` is packed, not followed. `ignore`: names in the archive left out with all below them. Raises
    FileNotFoundError where nothing is there.
    """
    directory, _, base = path.rstrip("/").rpartition("/")
    packer = _Packer(False, frozenset(os.fsencode(item) for item in ignore), Packed())
    if not base:
        return packer.pack(open_in_root(root, ".", os.O_RDONLY | os.O_DIRECTORY), os.fsencode(name))
    parent = open_in_root(root, directory or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.stat(base, dir_fd=parent, follow_symlinks=False)
    except OSError:
        os.close(parent)
        raise
    return packer.pack_one(parent, os.fsencode(base), os.fsencode(name))


class _Packer:
    def __init__(self, layer: bool, ignore: frozenset[bytes], packed: Packed) -> None:
        self._layer = layer
        self._ignore = ignore
        self._packed = packed
        self._links: dict[tuple[int, int], bytes] = {}

    def pack(self, root: int, prefix: bytes) -> Iterator[bytes]:
        """Everything below `root`, which is closed at the end; `prefix`, where given, becomes the tree's own entry."""
        start = b""
        if prefix:
            start = encode(self._entry(os.fstat(root), prefix, f"/proc/self/fd/{root}".encode(), follow=True))
        return self._batched(self._walk(root, prefix, start))

    def pack_one(self, parent: int, base: bytes, name: bytes) -> Iterator[bytes]:
        return self._batched(self._one(parent, base, name))

    def _batched(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Joins headers and small files: a chunk for each would cost more than its bytes."""
        batch = bytearray()
        for piece in pieces:
            batch += piece
            if len(batch) >= PIECE:
                self._packed.tar_size += len(batch)
                yield bytes(batch)
                batch.clear()
        batch += TRAILER
        self._packed.tar_size += len(batch)
        yield bytes(batch)

    def _one(self, parent: int, base: bytes, name: bytes) -> Iterator[bytes]:
        try:
            yield from self._member(parent, base, name)
            if stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode):
                yield from self._walk(os.open(base, _DIRECTORY, dir_fd=parent), name, b"")
        except OSError as error:
            raise SystemFailure(f"pack {name.decode('utf-8', 'backslashreplace')}", error.errno or errno.EIO) from error
        finally:
            os.close(parent)

    def _walk(self, root: int, prefix: bytes, start: bytes) -> Iterator[bytes]:
        """Depth first, names in byte order, by a stack of open directories."""
        stack: list[tuple[int, bytes, Iterator[bytes]]] = [(root, prefix, _names(root))]
        try:
            if start:
                yield start
            while stack:
                fd, path, names = stack[-1]
                name = next(names, None)
                if name is None:
                    os.close(stack.pop()[0])
                    continue
                full = path + b"/" + name if path else name
                if full in self._ignore:
                    continue
                try:
                    info = yield from self._member(fd, name, full)
                    if stat.S_ISDIR(info.st_mode):
                        below = os.open(name, _DIRECTORY, dir_fd=fd)
                        stack.append((below, full, _names(below)))
                except OSError as error:
                    if error.errno not in _GONE:
                        raise SystemFailure(f"pack {full.decode('utf-8', 'backslashreplace')}", error.errno or errno.EIO) from error
        finally:
            for fd, _, _ in stack:
                os.close(fd)

    def _member(self, parent: int, name: bytes, full: bytes) -> Generator[bytes, None, os.stat_result]:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kind = stat.S_IFMT(info.st_mode)
        if self._layer and is_whiteout(info):
            directory = full.rpartition(b"/")[0]
            yield encode(Entry((directory + b"/" if directory else b"") + WHITEOUT + name, Kind.FILE, 0o600, 0, 0, 0, 0))
            return info
        if kind not in _KINDS:
            return info  # a socket
        if kind != stat.S_IFDIR and info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), full)
            if first is not full:
                entry = self._entry(info, full, b"", xattrs=False)
                entry.kind, entry.link = Kind.LINK, first
                yield encode(entry)
                return info
        if kind == stat.S_IFREG:
            yield from self._file(parent, name, full)
            return info
        place = os.path.join(os.fsencode(f"/proc/self/fd/{parent}"), name)
        entry = self._entry(info, full, place)
        if kind == stat.S_IFLNK:
            entry.link = os.readlink(name, dir_fd=parent)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            entry.device = (os.major(info.st_rdev), os.minor(info.st_rdev))
        yield encode(entry)
        if self._layer and kind == stat.S_IFDIR and self._is_opaque(place):
            yield encode(Entry(full + b"/" + WHITEOUT_OPAQUE, Kind.FILE, 0o600, 0, 0, 0, 0))
        return info

    def _file(self, parent: int, name: bytes, full: bytes) -> Iterator[bytes]:
        fd = os.open(name, _READ, dir_fd=parent)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                return
            entry = self._entry(info, full, fd)
            yield encode(entry)
            self._packed.size += entry.size
            left = entry.size
            while left:
                data = os.read(fd, min(left, PIECE))
                if not data:
                    data = bytes(min(left, PIECE))
                left -= len(data)
                yield data
            yield padding(entry.size)
        finally:
            os.close(fd)

    def _entry(self, info: os.stat_result, full: bytes, place: bytes | int, *, xattrs: bool = True, follow: bool = False) -> Entry:
        kind = _KINDS[stat.S_IFMT(info.st_mode)]
        entry = Entry(full, kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, 0, int(info.st_mtime) * 1_000_000_000)
        if kind is Kind.FILE:
            entry.size = info.st_size
        if xattrs:
            entry.xattrs = self._xattrs(place, full, follow=follow or isinstance(place, int))
        return entry

    def _xattrs(self, place: bytes | int, full: bytes, *, follow: bool) -> dict[str, bytes]:
        try:
            names = os.listxattr(place, follow_symlinks=follow)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return {}
            raise
        if self._layer:
            for name in names:
                if name in _NEEDS_LOWER:
                    raise NotSupported(
                        f"{full.decode('utf-8', 'backslashreplace')} lies partly in a lower layer: mount with redirect_dir=off,metacopy=off"
                    )
        return {name: os.getxattr(place, name, follow_symlinks=follow) for name in names if name.startswith(XATTRS_KEPT)}

    def _is_opaque(self, place: bytes) -> bool:
        try:
            return os.getxattr(place, OPAQUE, follow_symlinks=False) == b"y"
        except OSError:
            return False


def _names(fd: int) -> Iterator[bytes]:
    return iter(sorted(os.fsencode(name) for name in os.listdir(fd)))
