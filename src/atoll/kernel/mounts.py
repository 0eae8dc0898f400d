"""Mounts through descriptors: open_tree, fsopen, mount_setattr, move_mount, and the few classic calls still needed.

A mount is made detached, gets its attributes, and is then attached to an open directory. Nothing here names a target by a path, so that no
symlink put there meanwhile can lead it elsewhere: the class of holes every runtime has had. The calls need Linux 5.12.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable
from typing import Final

from atoll.kernel import syscall

# mount(2)
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REC: Final = 0x4000
MS_UNBINDABLE: Final = 1 << 17
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
MNT_DETACH: Final = 2

# mount_setattr(2)
ATTR_RDONLY: Final = 0x1
ATTR_NOSUID: Final = 0x2
ATTR_NODEV: Final = 0x4
ATTR_NOEXEC: Final = 0x8
ATTR_ATIME: Final = 0x70  # the field that the next three are values of
ATTR_RELATIME: Final = 0x0
ATTR_NOATIME: Final = 0x10
ATTR_STRICTATIME: Final = 0x20
ATTR_NODIRATIME: Final = 0x80
ATTR_NOSYMFOLLOW: Final = 0x200000

_UNESCAPE: Final = re.compile(r"\\([0-7]{3})")  # of mountinfo: a space is \040
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
_MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40


class MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """The classic call, for targets nobody else can change: our own directories. Raises SystemFailure."""
    result = syscall.libc.mount(_path(source), _path(target), _path(kind), ctypes.c_ulong(flags), _path(data))
    syscall.checked(result, f"mount {kind or source or 'flags'} on {target}")


def unmount(target: str, flags: int = 0) -> None:
    syscall.checked(syscall.libc.umount2(_path(target), ctypes.c_int(flags)), f"unmount {target}")


def propagate(target: str, kind: int, *, recursive: bool = True) -> None:
    """Set how mounts below `target` spread: MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE."""
    mount(None, target, None, kind | (MS_REC if recursive else 0))


def mount_point(path: str, mountinfo: str = "/proc/self/mountinfo") -> str:
    """Where the mount that `path` lies on is mounted."""
    return mount_of(path, mountinfo)[0]


def mount_of(path: str, mountinfo: str = "/proc/self/mountinfo") -> tuple[str, frozenset[str]]:
    """The mount that `path` lies on: where it is mounted, and its kinds of propagation ("shared", "master", "unbindable")."""
    real = os.path.realpath(path)
    best, kinds = "", frozenset[str]()
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.partition(" - ")[0].split(" ")
            point = _UNESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
            if len(point) >= len(best) and (real == point or real.startswith(point.rstrip("/") + "/")):
                best, kinds = point, frozenset(field.partition(":")[0] for field in fields[6:])
    return best, kinds


def pivot_root(new_root: int, *, shared: bool = False) -> None:
    """Make the open directory, a mount point, the root, and let go of the old one.

    With "." as both arguments the old root ends up stacked on the new and needs no directory (pivot_root(2)). `shared`: the old one has
    mounts that the host shares, to whom their unmounting must not be handed on.
    """
    old_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if shared else -1
    os.fchdir(new_root)
    syscall.call("pivot_root", b".", b".", what="pivot_root")
    if shared:
        os.fchdir(old_root)  # "." of umount2 is what lies on top, "." of mount is not
        os.close(old_root)
        propagate(".", MS_SLAVE)
    unmount(".", MNT_DETACH)
    os.chdir("/")


def clone_tree(path: str, *, recursive: bool, at: int | None = None) -> int:
    """A detached copy of what is mounted at `path`: the source of a bind mount. With `at` the open file itself, `path` only names it."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    if at is None:
        return syscall.call("open_tree", _AT_FDCWD, _path(path), flags, what=f"bind {path}")
    return syscall.call("open_tree", at, b"", flags | _AT_EMPTY_PATH, what=f"bind {path}")


def new_filesystem(kind: str, parameters: Iterable[tuple[str, str | None]], *, source: str = "", attributes: int = 0) -> int:
    """A detached mount of a new file system; a parameter without a value is a flag ("newinstance")."""
    context = syscall.call("fsopen", kind.encode(), _FSOPEN_CLOEXEC, what=f"mount {kind}: fsopen")
    try:
        if source:
            _configure(context, kind, "source", source)
        for name, value in parameters:
            _configure(context, kind, name, value)
        syscall.call("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0, what=f"mount {kind}")
        return syscall.call("fsmount", context, _FSMOUNT_CLOEXEC, attributes, what=f"mount {kind}: fsmount")
    finally:
        os.close(context)


def _configure(context: int, kind: str, name: str, value: str | None) -> None:
    if value is None:
        syscall.call("fsconfig", context, _FSCONFIG_SET_FLAG, name.encode(), None, 0, what=f"mount {kind}: option {name}")
    else:
        command = _FSCONFIG_SET_STRING
        syscall.call("fsconfig", context, command, name.encode(), _path(value), 0, what=f"mount {kind}: option {name}={value}")


def set_attributes(mount_fd: int, *, add: int = 0, remove: int = 0, propagation: int = 0, recursive: bool = False) -> None:
    """Change a mount (or the tree of them) that an open descriptor stands on."""
    if add & ATTR_ATIME:
        remove |= ATTR_ATIME
    change = MountAttributes(add, remove, propagation, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(change)
    syscall.call("mount_setattr", mount_fd, b"", flags, ctypes.byref(change), size, what="change mount attributes")


def attach(mount_fd: int, target_fd: int, what: str, name: str = "") -> None:
    """Put a detached mount on the open file or directory `target_fd`, or on `name` in it, which nobody else can change; `what` names it in
    the error.
    """
    flags = _MOVE_MOUNT_F_EMPTY_PATH | (0 if name else _MOVE_MOUNT_T_EMPTY_PATH)
    syscall.call("move_mount", mount_fd, b"", target_fd, os.fsencode(name), flags, what=f"mount on {what}")


def _path(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)
