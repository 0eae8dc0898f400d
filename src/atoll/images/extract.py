"""Unpacks a tar below a directory and nowhere else.

Every path is resolved by the kernel with the directory as its root (openat2), every object is made relative to a directory descriptor and
never through a symlink, so a hostile archive meets the same walls a container does. For layers, whiteouts (image-spec layer.md) become
what overlayfs reads: 0/0 devices and the opaque xattr. Directories get their times last, since each member made in them changes those.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

from atoll.errors import InvalidInput, LimitExceeded, NotSupported, SystemFailure
from atoll.images.attributes import Dresser
from atoll.images.directories import DIRECTORY, Directories
from atoll.images.filedata import pieces, write_all, write_sparse
from atoll.images.room import FREE
from atoll.images.tar import Entry, Kind
from atoll.images.tarreader import TarReader
from atoll.images.treewalk import OPAQUE, remove_below
from atoll.kernel.openat2 import open_in_root

WHITEOUT = b".wh."
WHITEOUT_META = b".wh..wh."
WHITEOUT_OPAQUE = b".wh..wh..opq"
ENTRIES_MAX = 5_000_000
DISK_RESERVE = 256 << 20  # bytes an archive must leave free
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BAD_ENTRY = (errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EFBIG, errno.EILSEQ)

Rename = Callable[[bytes], bytes | None]


@dataclass(frozen=True, slots=True)
class Policy:
    """What to make of an archive.

    `whiteouts`: turn `.wh.` members into overlay's form. `owner`: give everything to this uid and gid. `keep_directories`: refuse to put a
    directory where another kind of file stands, and the reverse (`docker cp`). `into`: where in the root names begin. `rename`: gives each
    cleaned name its new one, or None to leave the member out. `bytes_max`: how much may be written; by default what the disk can spare.
    """

    whiteouts: bool = False
    owner: tuple[int, int] | None = None
    keep_directories: bool = False
    into: bytes = b""
    rename: Rename | None = None
    bytes_max: int | None = None
    entries_max: int = ENTRIES_MAX


LAYER = Policy(whiteouts=True)


@dataclass(frozen=True, slots=True)
class Extracted:
    """What came out: bytes of regular files, and members."""

    size: int
    entries: int


def extract_tar(chunks: Iterable[bytes], root: int, policy: Policy = LAYER, *, lowers: Sequence[Path] = ()) -> Extracted:
    """Unpacks the plain (uncompressed) tar of `chunks` below the directory `root`, reading `chunks` to its end.

    `lowers` are the directories of the layers beneath, top first: directories an archive leaves unsaid take their attributes from there,
    and hard links may point into them. Blocks; run it in a thread. Raises InvalidInput naming the entry, LimitExceeded, SystemFailure.
    """
    reader = TarReader(chunks)
    with Extractor(root, policy, lowers) as extractor:
        for entry in reader:
            extractor.add(entry, reader.data())
        extractor.finish()
        reader.drain()
        return Extracted(extractor.size, extractor.entries)


def clean_name(name: bytes) -> bytes:
    """The path below the root, without leading slashes, "." and inner ".."; b"" is the root itself.

    Raises InvalidInput for names that climb out.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidInput("its name climbs out of the root")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


_RAISED = (InvalidInput, OSError)


def _refuse(entry: Entry, error: InvalidInput | OSError) -> NoReturn:
    """Raises `error` with its entry's name, the kernel's refusals by their class."""
    if isinstance(error, InvalidInput):
        raise InvalidInput(f"archive entry {entry}: {error}") from error
    if error.errno in _BAD_ENTRY:
        raise InvalidInput(f"archive entry {entry}: {error.strerror}") from error
    raise SystemFailure(f"unpack archive entry {entry}", error.errno or errno.EIO) from error


class Extractor:
    """The state of one unpacking: its directories, and what was spent.

    A context manager: `add` each entry, then `finish`. For those who have entries without a tar; others call `extract_tar`.
    """

    def __init__(self, root: int, policy: Policy, lowers: Sequence[Path]) -> None:
        self._policy = policy
        self._directories = Directories(root, lowers)
        self._into = clean_name(policy.into)
        # In a layer being made no directory is setgid yet, so new files are ours already: a call saved for most.
        self._dresser = Dresser(owned_when_made=policy.whiteouts)
        self._left = policy.bytes_max if policy.bytes_max is not None else _spare(root)
        self.size = 0
        self.entries = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._directories.close()

    def add(self, entry: Entry, data: Iterator[memoryview]) -> None:
        self._directories.close_stale()
        self.entries += 1
        if self.entries > self._policy.entries_max:
            raise LimitExceeded(f"the archive has more than {self._policy.entries_max} entries")
        try:
            path = clean_name(entry.name)
            if self._policy.rename is not None:
                renamed = self._policy.rename(path)
                if renamed is None:
                    return
                path = clean_name(renamed)
            if self._into:
                path = self._into + b"/" + path if path else self._into
            if self._policy.owner is not None:
                entry.uid, entry.gid = self._policy.owner
            self._make(entry, path, data)
        except _RAISED as error:
            _refuse(entry, error)

    def adopt(self, entry: Entry, parent: int, name: str) -> None:
        """Makes a file of one outside that has all of `entry`'s attributes: a hard link to `name` in the directory `parent`.

        Raises SystemFailure, with EXDEV where the two are of different file systems.
        """
        try:
            path = clean_name(entry.name)
            directory, _, base = path.rpartition(b"/")
            place = self._directories.open(directory)
            self._place(place, path, base, entry, lambda: os.link(name, base, src_dir_fd=parent, dst_dir_fd=place, follow_symlinks=False))
        except _RAISED as error:
            _refuse(entry, error)
        self.size += entry.size

    def finish(self) -> None:
        """Gives directories their attributes, children before parents."""
        for path, entry in self._directories.pending():
            try:
                fd = self._directories.open_again(path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # a later member took its place
                _refuse(entry, error)
            try:
                self._dresser.dress(fd, entry)
            except OSError as error:
                _refuse(entry, error)
            finally:
                os.close(fd)

    # members -------------------------------------------------------------------------------------------------------------------------
    def _make(self, entry: Entry, path: bytes, data: Iterator[memoryview]) -> None:
        if not path:
            if entry.kind is Kind.DIRECTORY:
                self._directories.dress_later(b"", entry)
                return
            raise InvalidInput("it would replace the root")
        directory, _, name = path.rpartition(b"/")
        parent = self._directories.open(directory)
        if self._policy.whiteouts and name.startswith(WHITEOUT):
            self._whiteout(parent, directory, name)
        elif entry.kind is Kind.DIRECTORY:
            self._make_directory(parent, path, name, entry)
        elif entry.kind is Kind.FILE:
            self._make_file(parent, path, name, entry, data)
        elif entry.kind is Kind.LINK:
            self._make_link(parent, path, name, entry)
        elif entry.kind is Kind.SYMLINK:
            self._place(parent, path, name, entry, lambda: os.symlink(entry.link, name, dir_fd=parent))
            self._dresser.dress_name(parent, name, entry, mode=False)
        else:
            self._make_device(parent, path, name, entry)

    def _make_directory(self, parent: int, path: bytes, name: bytes, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not _is_directory(parent, name):
                hidden = path in self._directories.whiteouts
                self._clear(parent, path, name, entry)
                os.mkdir(name, 0o700, dir_fd=parent)
                if hidden:  # what stood below stays hidden
                    _set_opaque(self._directories.open(path))
        self._directories.dress_later(path, entry)

    def _make_file(self, parent: int, path: bytes, name: bytes, entry: Entry, data: Iterator[memoryview]) -> None:
        self._spend(entry)
        mode = entry.mode & 0o777
        try:
            fd = os.open(name, _NEW_FILE, mode, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, path, name, entry)
            fd = os.open(name, _NEW_FILE, mode, dir_fd=parent)
        try:
            if entry.sparse is None:
                for piece in data:
                    write_all(fd, piece)
            else:
                write_sparse(fd, entry, data)
            self._dresser.dress(fd, entry, made_with=mode)
        finally:
            os.close(fd)
        self.size += entry.size

    def _make_link(self, parent: int, path: bytes, name: bytes, entry: Entry) -> None:
        try:
            target = clean_name(entry.link)
        except InvalidInput:
            raise InvalidInput("its hard link points out of the root") from None
        if self._policy.rename is not None:
            target = clean_name(self._policy.rename(target) or target)
        if self._into:
            target = self._into + b"/" + target if target else self._into
        if target == path:
            raise InvalidInput("it is a hard link to itself")
        directory, _, base = target.rpartition(b"/")
        try:
            source = open_in_root(self._directories.root, directory or b".", DIRECTORY)
        except OSError:
            self._link_below(parent, path, name, target, entry)
            return
        try:
            if target in self._directories.whiteouts or not _is_linkable(source, base):
                self._link_below(parent, path, name, target, entry)
                return
            self._place(parent, path, name, entry, lambda: os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False))
        finally:
            os.close(source)
        self._dresser.dress_link(parent, name, entry)

    def _link_below(self, parent: int, path: bytes, name: bytes, target: bytes, entry: Entry) -> None:
        """A hard link into a lower layer becomes a copy, which is what writing to either name would make of it."""
        for lower in self._directories.lowers:
            try:
                fd = open_in_root(lower, target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                continue
            try:
                info = os.fstat(fd)
                if not stat.S_ISREG(info.st_mode):
                    break
                copy = Entry(entry.name, Kind.FILE, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns)
                copy.xattrs = {key: os.getxattr(fd, key) for key in os.listxattr(fd)}
                self._make_file(parent, path, name, copy, pieces(fd))
                return
            finally:
                os.close(fd)
        raise InvalidInput(f"its hard link points to {target.decode('utf-8', 'backslashreplace')}, which is not in the root")

    def _make_device(self, parent: int, path: bytes, name: bytes, entry: Entry) -> None:
        kinds = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}
        major, minor = entry.device
        if entry.kind is Kind.CHARACTER and major == minor == 0:
            raise InvalidInput("a 0/0 device would be a whiteout to overlayfs")
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise InvalidInput(f"no device has the number {major}/{minor}")
        device = os.makedev(major, minor)
        try:
            self._place(parent, path, name, entry, lambda: os.mknod(name, kinds[entry.kind] | 0o600, device, dir_fd=parent))
        except PermissionError:
            if os.geteuid() == 0 and entry.kind is Kind.FIFO:
                raise
            return  # without the right to make devices an image still unpacks, as in Docker's user namespaces
        self._dresser.dress_name(parent, name, entry, mode=True)

    def _whiteout(self, parent: int, directory: bytes, name: bytes) -> None:
        if name == WHITEOUT_OPAQUE:
            _set_opaque(parent)
            return
        if name.startswith(WHITEOUT_META):
            return  # AUFS's own books
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise InvalidInput("its whiteout names no file")
        path = b"/".join(part for part in (directory, hidden) if part)
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # Whiteouts hide lower layers only (layer.md): what this layer has made stays.
            if path not in self._directories.whiteouts and _is_directory(parent, hidden):
                _set_opaque(self._directories.open(path))
            return
        except PermissionError:
            raise NotSupported("overlay whiteouts are devices, which only root may make") from None
        self._directories.whiteouts.add(path)

    # replacing -----------------------------------------------------------------------------------------------------------------------
    def _place(self, parent: int, path: bytes, name: bytes, entry: Entry, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._clear(parent, path, name, entry)
            make()

    def _clear(self, parent: int, path: bytes, name: bytes, entry: Entry) -> None:
        """Takes away what stands at `path`, for a member of the same name."""
        directory = _is_directory(parent, name)
        if self._policy.keep_directories and directory != (entry.kind is Kind.DIRECTORY):
            here, there = ("directory", "non-directory") if directory else ("non-directory", "directory")
            raise InvalidInput(f"cannot overwrite {here} with {there}")
        if not directory:
            self._unlink(parent, path, name)
            return
        self._directories.removed(path)
        remove_below(parent, name)

    def _unlink(self, parent: int, path: bytes, name: bytes) -> None:
        os.unlink(name, dir_fd=parent)
        self._directories.forget_open()  # it may have been a symlink to a directory we know
        self._directories.whiteouts.discard(path)

    def _spend(self, entry: Entry) -> None:
        # Holes cost nothing now but count: a file of 8 EiB is no file anyone wants.
        self._left -= entry.size
        if self._left < 0:
            raise LimitExceeded(f"archive entry {entry}: the archive unpacks to more than there is room for; {FREE}")


def _set_opaque(fd: int) -> None:
    os.setxattr(fd, OPAQUE, b"y")


def _is_directory(parent: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _is_linkable(parent: int, name: bytes) -> bool:
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except (FileNotFoundError, ValueError):
        return False
    return not stat.S_ISDIR(mode)


def _spare(root: int) -> int:
    disk = os.fstatvfs(root)
    return max(0, disk.f_bavail * disk.f_frsize - DISK_RESERVE)
