"""`docker cp`: files in and out of a container, running or not.

Everything resolves inside the container's root (openat2), and nothing of the container is ever executed or loaded: packing and unpacking
are our own, by descriptor. Answers follow Docker: a stat in Go's terms, an archive whose entries begin with the path's last name.
"""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Iterator
from typing import Any

from atoll import units
from atoll.engine.containers.record import Container
from atoll.engine.containers.rootfs import is_read_only, path_root
from atoll.engine.services import Services
from atoll.errors import Forbidden, InvalidInput, NotFound
from atoll.images.bridge import consume, produce
from atoll.images.compression import decompress
from atoll.images.extract import Policy, extract_tar
from atoll.images.pack import pack_path
from atoll.kernel.openat2 import O_PATH, open_in_root

# Bits of Go's os.FileMode, which the API speaks in.
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}
_SPECIAL = ("dev", "proc", "sys")  # of a running container's root: the kernel's, not its own
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG}


def go_mode(mode: int) -> int:
    found = stat.S_IMODE(mode) & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0)
    return found | sum(bit for flag, bit in _GO_BITS.items() if mode & flag)


class Archive:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def stat(self, container: Container, path: str) -> dict[str, Any]:
        """{"name", "size", "mode", "mtime", "linkTarget"}. Raises NotFound."""
        return await asyncio.to_thread(self._stat, container, path)

    def _stat(self, container: Container, path: str) -> dict[str, Any]:
        with path_root(self._services, container, path) as (root, inner):
            return _stat_in(root, inner, container, path)

    async def read(self, container: Container, path: str) -> tuple[dict[str, Any], AsyncIterator[bytes]]:
        """The stat and the tar of `path`. Raises NotFound before the first byte."""
        found = await self.stat(container, path)
        return found, produce(self._pack(container, path))

    def _pack(self, container: Container, path: str) -> Iterator[bytes]:
        with path_root(self._services, container, path) as (root, inner):
            plain = inner.rstrip("/")
            if path.endswith(("/", "/.")) or not plain:
                plain = plain.removesuffix("/.") or "/"
                # A final slash means the directory, though the name be a symlink to it.
                directory = open_in_root(root, plain, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    name = _entry_name(path)
                    yield from pack_path(directory, ".", name, ignore=[f"{name}/{special}" for special in _SPECIAL] if plain == "/" else ())
                finally:
                    os.close(directory)
            else:
                yield from pack_path(root, plain, _entry_name(path))

    async def write(
        self, container: Container, path: str, chunks: AsyncIterator[bytes], *, keep_kinds: bool = False, keep_owner: bool = False
    ) -> None:
        """Unpacks a tar into the directory `path`. `keep_kinds`: a directory never replaces a file, nor the reverse."""
        if is_read_only(container, path):
            raise Forbidden(
                "container rootfs is marked read-only" if container.record.host["ReadonlyRootfs"] else "mounted volume is marked read-only"
            )

        def work(pieces: Iterator[bytes]) -> None:
            with path_root(self._services, container, path, writable=True) as (root, inner):
                directory = _open_directory(root, inner, container, path)
                try:
                    extract_tar(decompress(pieces), directory, Policy(keep_directories=keep_kinds))
                finally:
                    os.close(directory)

        if container.is_up:
            await consume(chunks, work)
        else:
            async with container.lock:  # the root is mounted for writing: it must not start meanwhile
                await consume(chunks, work)
        self._services.container_event(container, "extract-to-dir")


def _entry_name(path: str) -> str:
    base = posixpath.basename(path.rstrip("/"))
    return base or "/"


def _absent(container: Container, path: str) -> NotFound:
    return NotFound(f"Could not find the file {path} in container {container.id}")


def _stat_in(root: int, inner: str, container: Container, path: str) -> dict[str, Any]:
    try:
        fd = open_in_root(root, inner or "/", O_PATH | (0 if inner.endswith(("/", "/.")) else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno in _ABSENT:
            raise _absent(container, path) from error
        raise
    try:
        info = os.fstat(fd)
        target = os.readlink("", dir_fd=fd) if stat.S_ISLNK(info.st_mode) else ""
    finally:
        os.close(fd)
    return {
        "name": posixpath.basename(path.rstrip("/")) or "/",
        "size": info.st_size,
        "mode": go_mode(info.st_mode),
        "mtime": units.timestamp(info.st_mtime_ns),
        "linkTarget": _link_target(path, target) if target else "",
    }


def _link_target(path: str, target: str) -> str:
    """Where a link leads, as an absolute path in the container."""
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(path.rstrip("/")), target))


def _open_directory(root: int, inner: str, container: Container, path: str) -> int:
    try:
        return open_in_root(root, inner or "/", os.O_RDONLY | os.O_DIRECTORY)
    except NotADirectoryError:
        raise InvalidInput("extraction point is not a directory") from None
    except OSError as error:
        if error.errno in _ABSENT:
            raise _absent(container, path) from error
        raise
