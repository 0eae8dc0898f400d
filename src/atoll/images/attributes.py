"""Owner, mode, xattrs and time of what an archive's entry has become.

The order matters: chown(2) clears setuid bits and capabilities, so it comes first; everything changes the time, so that comes last.
"""

from __future__ import annotations

import errno
import os
import stat

from atoll.images.tar import Entry
from atoll.kernel.openat2 import O_PATH

XATTRS_KEPT = ("user.", "security.capability", "system.posix_acl_")
_XATTRS_REFUSED = ("user.overlay.",)  # an archive must not speak to overlayfs


class Dresser:
    """`owned_when_made`: new files are known to have this process's user and group, so that those need not be set again."""

    def __init__(self, *, owned_when_made: bool) -> None:
        self._owned_when_made = owned_when_made
        self._umask = _umask()
        self._euid, self._egid = os.geteuid(), os.getegid()

    def dress(self, fd: int, entry: Entry, made_with: int | None = None) -> None:
        """Gives an open file its attributes; `made_with` is the mode it has just been created with, None for what stood before."""
        if made_with is None or not self._owned_when_made or (entry.uid, entry.gid) != (self._euid, self._egid):
            self._own(fd, entry)
        if made_with is None or made_with & ~self._umask != entry.mode:
            os.fchmod(fd, entry.mode)
        for key, value in entry.xattrs.items():
            _set_xattr(fd, key, value)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def dress_link(self, parent: int, name: bytes, entry: Entry) -> None:
        """A hard link's entry speaks for the file it is another name of, as under Docker; archives mostly say the same of both.

        Of a symlink only the owner is set, so that nothing is ever followed.
        """
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        here = info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode), info.st_mtime_ns
        symlink = stat.S_ISLNK(info.st_mode)
        wanted = entry.uid, entry.gid, here[2] if symlink else entry.mode, here[3] if symlink else entry.mtime_ns
        if here != wanted or entry.xattrs:
            self.dress_name(parent, name, entry, mode=not symlink, time_ns=wanted[3])

    def dress_name(self, parent: int, name: bytes, entry: Entry, *, mode: bool, time_ns: int | None = None) -> None:
        """The same for what cannot or must not be opened: symlinks (without `mode`), devices, fifos."""
        time_ns = entry.mtime_ns if time_ns is None else time_ns
        try:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        except PermissionError:
            if self._euid == 0:
                raise
        if mode:
            fd = os.open(name, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                os.chmod(f"/proc/self/fd/{fd}", entry.mode)
            finally:
                os.close(fd)
        for key, value in entry.xattrs.items():
            _set_xattr(os.path.join(os.fsencode(f"/proc/self/fd/{parent}"), name), key, value)
        os.utime(name, ns=(time_ns, time_ns), dir_fd=parent, follow_symlinks=False)

    def _own(self, fd: int, entry: Entry) -> None:
        try:
            os.fchown(fd, entry.uid, entry.gid)
        except PermissionError:
            if self._euid == 0:
                raise


def _set_xattr(target: int | bytes, key: str, value: bytes) -> None:
    if not key.startswith(XATTRS_KEPT) or key.startswith(_XATTRS_REFUSED):
        return
    try:
        os.setxattr(target, key, value, follow_symlinks=isinstance(target, int))
    except OSError as error:
        # A file system without them loses them, as under Docker; the rest of the file is right.
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise


def _umask() -> int:
    # umask(2) can only be read by setting it, which other threads would see.
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line[6:], 8)
    return 0o777
