"""COPY and ADD: pieces of trees in, the directory of a new layer out.

The layer is made by the image extractor, which follows no link out of it and takes what a directory looks like from the layers below.
Links on the way to the destination are resolved in the merged root first, so that a copy into /lib lands where /lib leads.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from atoll.build.modes import Change
from atoll.build.newlayer import new_layer
from atoll.build.sources import LeaveOut, Member, Source, Tree
from atoll.errors import InvalidInput, SystemFailure
from atoll.images.attributes import XATTRS_KEPT
from atoll.images.compression import MAGIC_MAX, decompress, kind
from atoll.images.extract import Extractor, Policy, extract_tar
from atoll.images.filedata import pieces
from atoll.images.tar import Entry, Kind
from atoll.kernel.openat2 import open_in_root
from atoll.runtime.users import resolve

READ = 1 << 20
TAR_MAGIC = (257, b"ustar")
PARENT_MODE = 0o755
KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFIFO: Kind.FIFO,
}


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing to copy. `unpack`: an archive's content is meant, where it is one; `mode` None keeps the source's own."""

    tree: Tree
    source: Source
    unpack: bool = False
    mode: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """What to do with the pieces. `target` is absolute, with a slash at its end where it must be a directory.

    `owner` is "", or user[:group]. `keep_owner`: without an `owner` the sources keep theirs. `parents` keeps the directories the sources
    lie in. `ways_mode` is for the directories that are made on the way.
    """

    target: str
    owner: str = ""
    ways_mode: int = PARENT_MODE
    change_mode: Change | None = None
    keep_owner: bool = False
    parents: bool = False
    leave_out: LeaveOut | None = None


def copy(wanted: Copy, sources: Sequence[Piece], below: Tree | None, lowers: Sequence[Path], scratch: Path) -> Path:
    """The directory of the new layer; the caller takes it or removes it. BELOW is the merged root, None for an empty one. Blocks.

    Raises InvalidInput.
    """
    target = below.follow(wanted.target) if below else wanted.target.strip("/")
    into_directory = wanted.parents or wanted.target.endswith("/") or _is_directory(below, target)
    if into_directory and below is not None and below.exists(target) and not below.is_directory(target):
        raise InvalidInput(f"cannot copy to non-directory: {wanted.target}")
    owner = None if wanted.keep_owner and not wanted.owner else owner_of(wanted.owner, below)
    with new_layer(scratch) as (directory, root):
        if wanted.owner or wanted.ways_mode != PARENT_MODE:
            ways = missing_ways(below, target if into_directory else posixpath.dirname(target))
            _make_ways(root, lowers, owner or (0, 0), wanted.ways_mode, ways)
        for piece in sources:
            if piece.unpack and not piece.source.is_directory and is_archive(piece.tree, piece.source):
                policy = Policy(into=os.fsencode(target), owner=owner if wanted.owner else None)
                with closing(_read(piece.tree, piece.source)) as data:
                    extract_tar(decompress(data), root, policy, lowers=lowers)
                continue
            name = _name(piece.source, target, into_directory=into_directory, parents=wanted.parents)
            writer = _Writer(piece, wanted, owner, os.fsencode(name))
            # What is there already keeps its own attributes: only what is in it was asked for.
            with Extractor(root, Policy(), lowers) as extractor:
                writer.write(extractor, keep_top=piece.source.is_directory and _is_directory(below, name))
                extractor.finish()
    return directory


def missing_ways(below: Tree | None, target: str) -> list[str]:
    """Of the directory TARGET and those on the way to it, the ones that the stage has not."""
    parts = target.split("/")
    ways = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return [way for way in ways if way and not (below is not None and below.exists(way))]


def _make_ways(root: int, lowers: Sequence[Path], owner: tuple[int, int], mode: int, ways: Sequence[str]) -> None:
    """Made for what --chown gives away, they are given away with it; an octal --chmod is theirs too."""
    with Extractor(root, Policy(), lowers) as extractor:
        for way in ways:
            extractor.add(Entry(os.fsencode(way), Kind.DIRECTORY, mode, *owner, 0, time.time_ns()), iter(()))
        extractor.finish()


def _name(source: Source, target: str, *, into_directory: bool, parents: bool) -> str:
    """Where SOURCE goes. A directory's content is copied, not the directory itself; a file keeps its name where the target is one."""
    if parents:
        return posixpath.join(target, source.kept)
    return posixpath.join(target, source.name) if into_directory and not source.is_directory else target


class _Writer:
    def __init__(self, piece: Piece, wanted: Copy, owner: tuple[int, int] | None, name: bytes) -> None:
        self._piece = piece
        self._wanted = wanted
        self._owner = owner
        self._name = name
        self._links: dict[tuple[int, int], bytes] = {}

    def write(self, extractor: Extractor, *, keep_top: bool) -> None:
        if self._wanted.parents:
            self._write_parents(extractor)
        for member in self._piece.tree.walk(self._piece.source.path, self._wanted.leave_out):
            if not (keep_top and not member.path):
                self._write_member(extractor, member)

    def _write_parents(self, extractor: Extractor) -> None:
        """The directories between the pivot and the source, as they are there."""
        source = self._piece.source
        above = source.kept.split("/")[:-1]
        top = self._name.removesuffix(os.fsencode(source.kept)).rstrip(b"/")
        start = source.path.removesuffix(source.kept).rstrip("/")
        for count in range(1, len(above) + 1):
            inner = "/".join(above[:count])
            status = self._piece.tree.status(self._piece.tree.follow(posixpath.join(start, inner)))
            entry = self._entry(b"/".join(part for part in (top, os.fsencode(inner)) if part), status)
            if entry is not None:
                extractor.add(entry, iter(()))

    def _write_member(self, extractor: Extractor, member: Member) -> None:
        path = b"/".join(part for part in (self._name, os.fsencode(member.path)) if part)
        entry = self._entry(path, member.status)
        if entry is None or not path:
            return
        if entry.kind is Kind.SYMLINK:
            entry.link = os.fsencode(os.readlink(member.name, dir_fd=member.parent))
        if entry.kind not in (Kind.FILE, Kind.DIRECTORY):
            extractor.add(entry, iter(()))
            return
        status = member.status
        if entry.kind is Kind.FILE and status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first is not path:
                entry.kind, entry.link = Kind.LINK, first
                extractor.add(entry, iter(()))
                return
        if entry.kind is Kind.FILE and self._adopt(extractor, entry, member):
            return
        fd = member.open()
        try:
            entry.xattrs = {key: os.getxattr(fd, key) for key in os.listxattr(fd) if key.startswith(XATTRS_KEPT)}
            extractor.add(entry, pieces(fd) if entry.kind is Kind.FILE else iter(()))
        finally:
            os.close(fd)

    def _adopt(self, extractor: Extractor, entry: Entry, member: Member) -> bool:
        """Takes a file of the build's own as it is, where nothing about it changes: writing it a second time is most of a copy's cost.

        Once only: what two layers share would be counted twice, and freed by neither alone.
        """
        status = member.status
        same = (entry.mode, entry.uid, entry.gid, entry.mtime_ns) == (
            *(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns),
        )
        if self._piece.tree.place is None or not same or status.st_nlink > 1:
            return False
        try:
            extractor.adopt(entry, member.parent, member.name)
        except SystemFailure as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            return False
        return True

    def _entry(self, path: bytes, status: os.stat_result) -> Entry | None:
        """None for a socket: no layer can hold one."""
        found = KINDS.get(stat.S_IFMT(status.st_mode))
        if found is None:
            return None
        mode = stat.S_IMODE(status.st_mode) if self._piece.mode is None else self._piece.mode
        if self._wanted.change_mode is not None and found is not Kind.SYMLINK:
            mode = self._wanted.change_mode(mode, found is Kind.DIRECTORY)
        uid, gid = self._owner or (status.st_uid, status.st_gid)
        size = status.st_size if found is Kind.FILE else 0
        mtime = status.st_mtime_ns if self._piece.mtime_ns is None else self._piece.mtime_ns
        entry = Entry(path, found, mode, uid, gid, size, mtime)
        if found in (Kind.CHARACTER, Kind.BLOCK):
            entry.device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        return entry


def _is_directory(below: Tree | None, path: str) -> bool:
    if not path:
        return True
    try:
        return below is not None and below.is_directory(path)
    except OSError:
        return False


def owner_of(text: str, below: Tree | None) -> tuple[int, int]:
    """The numbers of user[:group], as a stage's own files name them; root's for "". Raises InvalidInput."""
    if not text:
        return 0, 0
    user, _, group = text.partition(":")
    if user.isdigit() and (not group or group.isdigit()):
        return int(user), int(group or user)
    if below is None:
        raise InvalidInput(f"unable to convert uid/gid chown string {text}: the stage has no /etc/passwd")
    found = resolve(below.root, text)
    return found.uid, found.gid


def is_archive(tree: Tree, source: Source) -> bool:
    """Whether a file is a tar, plain or compressed, by its first bytes."""
    with closing(_read(tree, source)) as data:
        start = next(data, b"")
        if kind(start[:MAGIC_MAX]) is not None:
            try:
                start = next(iter(decompress(chain((start,), data))), b"")
            except InvalidInput:
                return False
    offset, magic = TAR_MAGIC
    return start[offset : offset + len(magic)] == magic


def _read(tree: Tree, source: Source) -> Generator[bytes, None, None]:
    fd = open_in_root(tree.root, source.path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while data := os.read(fd, READ):
            yield data
    finally:
        os.close(fd)
