"""A build context as a tar stream: the directory less what .dockerignore names, owned by root, read block by block.

What the reference client sends (docker/cli, build): relative names with slashes, uid and gid 0, symbolic links as links, sockets left
out; the Dockerfile and .dockerignore always go along.
"""

from __future__ import annotations

import os
import stat
import tarfile

from atoll.build.ignore import Ignore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 1 << 18
IGNORE_FILE_MAX = 1 << 20  # bytes


def read_ignore(directory: str, dockerfile: str) -> Ignore:
    """`<Dockerfile>.dockerignore` beside the Dockerfile wins over the context's own .dockerignore."""
    for path in (f"{dockerfile}.dockerignore", os.path.join(directory, ".dockerignore")):
        try:
            with open(path, encoding="utf-8") as file:
                return Ignore.parse(file.read(IGNORE_FILE_MAX))
        except FileNotFoundError:
            continue
    return Ignore()


def stream(directory: str, ignore: Ignore, keep: frozenset[str], extra: dict[str, bytes]) -> Iterator[bytes]:
    """The tar, in pieces. KEEP names go along whatever is ignored; EXTRA are files that are not in the directory."""
    links: dict[tuple[int, int], str] = {}
    for path, name in _walk(directory, "", ignore, keep):
        yield from _entry(path, name, links)
    for name, data in extra.items():
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o600
        yield info.tobuf(tarfile.PAX_FORMAT) + data + _padding(len(data))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _walk(directory: str, prefix: str, ignore: Ignore, keep: frozenset[str]) -> Iterator[tuple[str, str]]:
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = f"{prefix}{entry.name}"
        is_directory = entry.is_dir(follow_symlinks=False)
        excluded = name not in keep and ignore.excludes(name)
        if not excluded:
            yield entry.path, name
        # An excluded directory is still looked into where something below it may be taken back.
        if is_directory and (not excluded or ignore.has_exceptions or any(kept.startswith(f"{name}/") for kept in keep)):
            yield from _walk(entry.path, f"{name}/", ignore, keep)


def _entry(path: str, name: str, links: dict[tuple[int, int], str]) -> Iterator[bytes]:
    status = os.lstat(path)
    if stat.S_ISSOCK(status.st_mode):
        return
    info = tarfile.TarInfo(name)
    info.mode = stat.S_IMODE(status.st_mode)
    info.mtime = int(status.st_mtime)
    if stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISFIFO(status.st_mode):
        info.type = tarfile.FIFOTYPE
    elif stat.S_ISREG(status.st_mode):
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in links:
            info.type, info.linkname = tarfile.LNKTYPE, links[key]
        else:
            links[key] = name
            yield from file_blocks(path, info)
            return
    else:
        return  # a device has no place in a context
    yield info.tobuf(tarfile.PAX_FORMAT)


def file_blocks(path: str, info: tarfile.TarInfo) -> Iterator[bytes]:
    with open(path, "rb") as file:
        info.size = os.fstat(file.fileno()).st_size
        yield info.tobuf(tarfile.PAX_FORMAT)
        left = info.size
        while left and (data := file.read(min(BLOCK, left))):
            yield data
            left -= len(data)
    # A file that shrank while it was read is filled up: the header has promised its size.
    while left:
        yield bytes(min(BLOCK, left))
        left -= min(BLOCK, left)
    yield _padding(info.size)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
