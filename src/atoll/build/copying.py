"""COPY and ADD: sources in, a layer out.

The layer is made in a directory of its own by the image extractor, which takes what a directory already there looks like from the layers
below. Links on the way to the destination are resolved in the merged root first, so that a copy into /lib lands where /lib leads.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.build.sources import Source, Tree
from atoll.errors import InvalidInput
from atoll.images.compression import MAGIC_MAX, decompress, kind
from atoll.images.extract import Policy, extract_tar
from atoll.images.pack import pack_path
from atoll.kernel.openat2 import open_in_root
from atoll.runtime.users import resolve

READ = 1 << 20
TAR_MAGIC = (257, b"ustar")


@dataclass(frozen=True, slots=True)
class Copy:
    """What to do. `target` as written, absolute; `owner` is "", or user[:group]; `mode` None keeps the sources' own."""

    sources: tuple[tuple[Tree, Source], ...]
    target: str
    owner: str = ""
    mode: int | None = None
    keep_owner: bool = False
    unpack: bool = False


def copy(wanted: Copy, below: Tree | None, lowers: Sequence[Path], scratch: Path) -> Path:
    """The directory of the new layer; the caller takes it or removes it. BELOW is the merged root, None for an empty one. Blocks.

    Raises InvalidInput.
    """
    target = below.follow(wanted.target) if below else wanted.target.strip("/")
    into_directory = wanted.target.endswith(("/", "/.")) or len(wanted.sources) > 1 or _is_directory(below, target)
    if len(wanted.sources) > 1 and not wanted.target.endswith("/") and not _is_directory(below, target):
        raise InvalidInput("When using COPY with more than one source file, the destination must be a directory and end with a /")
    owner = None if wanted.keep_owner and not wanted.owner else _owner(wanted.owner, below)
    directory = Path(tempfile.mkdtemp(prefix="copy-", dir=scratch))
    directory.chmod(0o755)
    try:
        with _opened(directory) as root:
            for tree, source in wanted.sources:
                _one(tree, source, target, root, lowers, owner, wanted, into_directory=into_directory)
            if wanted.mode is not None:
                _set_modes(root, wanted.mode, target)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return directory


def _one(
    tree: Tree,
    source: Source,
    target: str,
    root: int,
    lowers: Sequence[Path],
    owner: tuple[int, int] | None,
    wanted: Copy,
    *,
    into_directory: bool,
) -> None:
    if wanted.unpack and not source.is_directory and _is_archive(tree, source):
        chunks: Iterator[bytes] = decompress(_read(tree, source))
        extract_tar(chunks, root, Policy(into=os.fsencode(target)), lowers=lowers)
        return
    # A directory's content is copied, not the directory itself; a file keeps its name where the target is a directory.
    name = target if source.is_directory or not into_directory else posixpath.join(target, source.name)
    prefix = name.encode("utf-8", "surrogateescape")

    def renamed(path: bytes) -> bytes | None:
        inner = path.removeprefix(b"\1").lstrip(b"/")
        if source.is_directory and not inner:
            return None if _exists(lowers, target) else prefix
        return b"/".join(part for part in (prefix, inner) if part)

    extract_tar(pack_path(tree.root, source.path or ".", "\1"), root, Policy(owner=owner, rename=renamed), lowers=lowers)


def _exists(lowers: Sequence[Path], path: str) -> bool:
    return any((lower / path).is_dir() for lower in lowers) if path else True


def _is_directory(below: Tree | None, path: str) -> bool:
    if not path:
        return True
    try:
        return below is not None and below.is_directory(path)
    except OSError:
        return False


def _owner(text: str, below: Tree | None) -> tuple[int, int]:
    if not text:
        return 0, 0
    user, _, group = text.partition(":")
    if user.isdigit() and (not group or group.isdigit()):
        return int(user), int(group or user)
    if below is None:
        raise InvalidInput(f"unable to convert uid/gid chown string {text}: the stage has no /etc/passwd")
    found = resolve(below.root, text)
    return found.uid, found.gid


def _is_archive(tree: Tree, source: Source) -> bool:
    start = next(_read(tree, source), b"")
    if kind(start[:MAGIC_MAX]) is not None:
        plain = next(iter(decompress(iter([start, *_read(tree, source, skip=len(start))]))), b"")
        start = plain
    offset, magic = TAR_MAGIC
    return start[offset : offset + len(magic)] == magic


def _read(tree: Tree, source: Source, skip: int = 0) -> Iterator[bytes]:
    fd = open_in_root(tree.root, source.path, os.O_RDONLY)
    try:
        os.lseek(fd, skip, os.SEEK_SET)
        while data := os.read(fd, READ):
            yield data
    finally:
        os.close(fd)


def _set_modes(root: int, mode: int, target: str) -> None:
    """--chmod holds for what was copied, not for the directories on the way to it."""
    for top, directories, files, fd in os.fwalk(".", dir_fd=root, follow_symlinks=False):
        here = posixpath.normpath(top).removeprefix("./")
        for name in (*directories, *files):
            path = name if here == "." else f"{here}/{name}"
            on_the_way = target != path and target.startswith(f"{path}/")
            if on_the_way or stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                continue
            os.chmod(name, mode, dir_fd=fd)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
