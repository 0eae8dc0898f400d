"""Where COPY and ADD take files from, and what they are: a tree behind a directory descriptor, walked without following links out of it.

The context is a directory the tar was safely unpacked in; another stage or image is its layers merged. A digest over paths, kinds, modes,
owners and content (not times) is what the cache compares.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.build.ignore import Pattern
from atoll.errors import InvalidInput
from atoll.images.attributes import XATTRS_KEPT
from atoll.kernel.detached import open_overlay
from atoll.kernel.openat2 import O_PATH, open_in_root

READ = 1 << 20
WILD = frozenset("*?[")
DEEP = "**"
CONTEXT = "the build context"
LINKS_MAX = 40  # the kernel's own limit
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

LeaveOut = Callable[[str], bool]
"""Whether a path, relative to what is copied, stays behind."""


@dataclass(frozen=True, slots=True)
class Source:
    """One path of a tree: `path` without a leading slash, links resolved, "" for the root itself; `name` as it was asked for.

    `kept` is the part of the path that --parents keeps.
    """

    path: str
    name: str
    is_directory: bool
    kept: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a walk, `name` in the open directory `parent`; `path` is relative to where the walk began, "" its beginning."""

    path: str
    name: str
    parent: int
    status: os.stat_result

    def open(self) -> int:
        return os.open(self.name, _FILE, dir_fd=self.parent)


class Tree:
    """A root directory, and what errors call it.

    `place` is where it lies, where it is a directory of the build's own: nobody changes its files, and it goes when the build ends.
    """

    def __init__(self, root: int, what: str, place: Path | None = None) -> None:
        self.root = root
        self.what = what
        self.place = place

    def find(self, pattern: str, *, parents: bool = False) -> list[Source]:
        """What PATTERN names; wildcards stay within a segment, as in Go's filepath.Match. Raises InvalidInput where nothing does.

        With PARENTS, `**` stands for any directories, and what follows `/./` is kept.
        """
        before, pivot, after = pattern.partition("/./")
        above = _inside(before) if parents and pivot else ""
        clean = posixpath.join(above, _inside(after)) if parents and pivot else _inside(pattern)
        found = list(self._glob(clean, deep=parents)) if WILD & set(clean) else [clean]
        if not found:
            raise InvalidInput(f"COPY failed: no source files were specified: nothing in {self.what} matches {pattern}")
        return [self._source(path, pattern, posixpath.relpath(path or ".", above or ".")) for path in found]

    def _source(self, path: str, shown: str, kept: str) -> Source:
        followed = self.follow(path) if path else ""
        try:
            return Source(followed, posixpath.basename(path), self.is_directory(followed), "" if kept == "." else kept)
        except OSError:
            raise InvalidInput(
                f"COPY failed: file not found in build context or excluded by .dockerignore: stat {shown}: file does not exist"
                if self.what == CONTEXT
                else f"COPY failed: stat {shown}: file does not exist in {self.what}"
            ) from None

    def follow(self, path: str) -> str:
        """The path with a link at its end, or on the way, resolved within the root; parts that do not exist stay as they are."""
        parts = [part for part in path.split("/") if part not in ("", ".")][::-1]
        done: list[str] = []
        links = 0
        while parts:
            part = parts.pop()
            if part == "..":
                done = done[:-1]
                continue
            target = self.link("/".join([*done, part]))
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > LINKS_MAX:
                raise InvalidInput(f"too many levels of symbolic links: {path}")
            if target.startswith("/"):
                done = []
            parts += [piece for piece in target.split("/") if piece not in ("", ".")][::-1]
        return "/".join(done)

    def link(self, path: str) -> str | None:
        """What the symbolic link at PATH says; None where there is none."""
        parent, _, name = path.rpartition("/")
        try:
            fd = open_in_root(self.root, parent or ".", O_PATH | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            return os.readlink(name, dir_fd=fd)
        except OSError:
            return None
        finally:
            os.close(fd)

    def status(self, path: str) -> os.stat_result:
        """What lstat gives, within the root. Raises OSError."""
        fd = open_in_root(self.root, path or ".", O_PATH | os.O_NOFOLLOW)
        try:
            return os.stat(fd)
        finally:
            os.close(fd)

    def is_directory(self, path: str) -> bool:
        return stat.S_ISDIR(self.status(path).st_mode)

    def exists(self, path: str) -> bool:
        try:
            self.status(path)
        except OSError:
            return False
        return True

    def read(self, path: str, limit: int) -> bytes:
        """A file's first LIMIT bytes, a link at its end followed within the root. Raises OSError."""
        fd = open_in_root(self.root, path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.pread(fd, limit, 0)
        finally:
            os.close(fd)

    def _glob(self, pattern: str, *, deep: bool) -> Iterator[str]:
        found = [""]
        for segment in pattern.split("/"):
            if segment == DEEP and deep:
                found = [path for top in found for path in self._directories(top)]
            elif WILD & set(segment):
                wanted = Pattern(segment)
                found = [f"{top}/{name}".lstrip("/") for top in found for name in self.names(top) if wanted.matches(name)]
            else:
                found = [path for top in found if self.exists(path := f"{top}/{segment}".lstrip("/"))]
        return iter(dict.fromkeys(found))

    def _directories(self, top: str) -> list[str]:
        inner = [f"{top}/{member.path}".strip("/") for member in self.walk(top) if stat.S_ISDIR(member.status.st_mode)]
        return inner or [top]

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; none where it is no directory."""
        try:
            fd = open_in_root(self.root, path or ".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return []
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def walk(self, path: str, leave_out: LeaveOut | None = None) -> Iterator[Member]:
        """PATH itself and all below it, names in order, a directory before what is in it. Raises OSError for PATH itself."""
        directory, _, base = path.rpartition("/")
        stack = [(open_in_root(self.root, directory or ".", _DIRECTORY & ~os.O_NOFOLLOW), "", iter([base or "."]))]
        try:
            while stack:
                parent, above, names = stack[-1]
                name = next(names, None)
                if name is None:
                    os.close(stack.pop()[0])
                    continue
                inner = f"{above}/{name}".lstrip("/") if len(stack) > 1 else ""
                if inner and leave_out is not None and leave_out(inner):
                    continue
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                yield Member(inner, name, parent, status)
                if stat.S_ISDIR(status.st_mode):
                    fd = os.open(name, _DIRECTORY, dir_fd=parent)
                    stack.append((fd, inner, iter(sorted(os.listdir(fd)))))
        finally:
            for fd, _, _ in stack:
                os.close(fd)

    def digest(self, source: Source, leave_out: LeaveOut | None = None) -> str:
        """Over what COPY would write: names, kinds, modes, owners, link targets, content. Blocks."""
        total = hashlib.sha256()
        for member in self.walk(source.path, leave_out):
            status = member.status
            device = status.st_rdev if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else 0
            head = f"{member.path}\0{status.st_mode:o}\0{status.st_uid}\0{status.st_gid}\0{device}\0"
            total.update(head.encode("utf-8", "surrogateescape"))
            if stat.S_ISREG(status.st_mode):
                total.update(_content(member))
            elif stat.S_ISLNK(status.st_mode):
                total.update(os.fsencode(os.readlink(member.name, dir_fd=member.parent)))
            total.update(b"\n")
        return total.hexdigest()


def _content(member: Member) -> bytes:
    content = hashlib.sha256()
    fd = member.open()
    try:
        while data := os.read(fd, READ):
            content.update(data)
        for name in sorted(name for name in os.listxattr(fd) if name.startswith(XATTRS_KEPT)):
            content.update(f"\0{name}\0".encode() + os.getxattr(fd, name))
    finally:
        os.close(fd)
    return content.digest()


@contextmanager
def directory_tree(place: Path, what: str) -> Iterator[Tree]:
    """A directory of the builder's own."""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Tree(fd, what, place)
    finally:
        os.close(fd)


@contextmanager
def merged_tree(lowers: Sequence[Path], what: str) -> Iterator[Tree]:
    """The layers of a stage or an image, LOWERS from the top down, merged. Raises InvalidInput where there are none."""
    if not lowers:
        raise InvalidInput(f"{what} is empty: it has no files to take")
    fd = open_overlay(lowers)
    try:
        yield Tree(fd, what)
    finally:
        os.close(fd)


def _inside(pattern: str) -> str:
    """Without leading slashes and dots. A path that climbs out is refused: it can name nothing of the context."""
    clean = posixpath.normpath(pattern.lstrip("/") or ".")
    if clean == ".." or clean.startswith("../"):
        raise InvalidInput(f"COPY failed: forbidden path outside the build context: {pattern} ()")
    return "" if clean == "." else clean
