"""openat2(2): open a path without ever leaving a directory, decided by the kernel.

Paths inside a container's root are hostile: a component may be, or become while we look, a symlink to the host. RESOLVE_IN_ROOT makes the
kernel resolve "..", absolute paths and absolute symlinks as if `root` were "/", with no window between check and use (Linux 5.6).
syncfs(2) is here for the same reason: Python's os has neither.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

O_PATH: Final = 0o10000000
_SYS_OPENAT2: Final = 437  # the same number on every architecture, asm-generic
_RETRIES: Final = 128  # EAGAIN means a rename raced with "..": rare, and never for long (openat2(2))

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_SIZE: Final = ctypes.c_size_t(ctypes.sizeof(_OpenHow))


def open_in_root(root: int, path: str | bytes, flags: int, mode: int = 0, *, resolve: int = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS) -> int:
    """Opens `path` as seen by a process whose root is the directory `root`; the new descriptor is close-on-exec.

    `mode` counts only with O_CREAT or O_TMPFILE. Raises OSError, with ELOOP for a magic link and EXDEV for an escape under RESOLVE_BENEATH.
    """
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise OSError(errno.EINVAL, "path holds a NUL byte", path)
    how = _OpenHow(flags | os.O_CLOEXEC, mode & 0o7777 if flags & (os.O_CREAT | os.O_TMPFILE) else 0, resolve)
    for _ in range(_RETRIES):
        fd = int(_syscall(_SYS_OPENAT2, ctypes.c_int(root), ctypes.c_char_p(raw), ctypes.byref(how), _SIZE))
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(code, os.strerror(code), path)


def syncfs(fd: int) -> None:
    """Writes all of the file system that holds `fd` to disk: one call in place of an fsync for each of many files."""
    if _libc.syncfs(ctypes.c_int(fd)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "syncfs")
