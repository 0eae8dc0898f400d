"""Where COPY and ADD take files from, and what they are: a tree behind a directory descriptor, walked without following links out of it.

The context is a directory the tar was safely unpacked in; another stage or image is its layers merged. A digest over paths, modes and
content (not times) is what the cache compares.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from atoll.errors import InvalidInput
from atoll.kernel.openat2 import O_PATH, open_in_root

READ = 1 << 20
WILD = frozenset("*?[")
CONTEXT = "the build context"
LINKS_MAX = 40  # the kernel's own limit


@dataclass(frozen=True, slots=True)
class Source:
    """One path of a tree: `path` without a leading slash, "" for the root itself."""

    path: str
    is_directory: bool

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)


class Tree:
    """A root directory, and what errors call it."""

    def __init__(self, root: int, what: str) -> None:
        self.root = root
        self.what = what

    def find(self, pattern: str) -> list[Source]:
        """What PATTERN names; wildcards stay within a segment, as in Go's filepath.Match. Raises InvalidInput where nothing does."""
        clean = _inside(pattern)
        found = list(self._glob(clean)) if WILD & set(clean) else [clean]
        if not found:
            raise InvalidInput(f"COPY failed: no source files were specified: nothing in {self.what} matches {pattern}")
        return [self._source(path, pattern) for path in found]

    def _source(self, path: str, shown: str) -> Source:
        followed = self.follow(path) if path else ""
        try:
            return Source(followed, self.is_directory(followed))
        except OSError:
            raise InvalidInput(
                f"COPY failed: file not found in build context or excluded by .dockerignore: stat {shown}: file does not exist"
                if self.what == CONTEXT
                else f"COPY failed: stat {shown}: file does not exist in {self.what}"
            ) from None

    def follow(self, path: str) -> str:
        """The path with a link at its end, or on the way, resolved within the root; parts that do not exist stay as they are."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        done: list[str] = []
        links = 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            target = self._link("/".join([*done, part]))
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > LINKS_MAX:
                raise InvalidInput(f"too many levels of symbolic links: {path}")
            if target.startswith("/"):
                done = []
            parts = [piece for piece in target.split("/") if piece not in ("", ".")] + parts
        return "/".join(done)

    def _link(self, path: str) -> str | None:
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

    def _glob(self, pattern: str) -> Iterator[str]:
        found = [""]
        for segment in pattern.split("/"):
            following = []
            for parent in found:
                if not WILD & set(segment):
                    path = f"{parent}/{segment}".lstrip("/")
                    following += [path] if self.exists(path) else []
                    continue
                following += [f"{parent}/{name}".lstrip("/") for name in self.names(parent) if fnmatch.fnmatchcase(name, segment)]
            found = following
        return iter(found)

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

    def digest(self, source: Source) -> str:
        """Over what COPY would write: names, kinds, modes, owners, link targets, content. Blocks."""
        total = hashlib.sha256()
        for path, status in self._walk(source.path):
            inner = path[len(source.path) :]
            total.update(f"{inner}\0{status.st_mode:o}\0{status.st_uid}\0{status.st_gid}\0".encode("utf-8", "surrogateescape"))
            if stat.S_ISREG(status.st_mode):
                total.update(self._content(path))
            elif stat.S_ISLNK(status.st_mode):
                total.update((self._link(path) or "").encode("utf-8", "surrogateescape"))
            total.update(b"\n")
        return total.hexdigest()

    def _walk(self, path: str) -> Iterator[tuple[str, os.stat_result]]:
        status = self.status(path)
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            for name in self.names(path):
                inner = f"{path}/{name}".lstrip("/")
                yield from self._walk(inner)

    def _content(self, path: str) -> bytes:
        content = hashlib.sha256()
        fd = open_in_root(self.root, path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            while data := os.read(fd, READ):
                content.update(data)
        finally:
            os.close(fd)
        return content.digest()


def _inside(pattern: str) -> str:
    """Without leading slashes and dots. A path that climbs out is refused: it can name nothing of the context."""
    clean = posixpath.normpath(pattern.lstrip("/") or ".")
    if clean == ".." or clean.startswith("../"):
        raise InvalidInput(f"COPY failed: forbidden path outside the build context: {pattern} ()")
    return "" if clean == "." else clean
