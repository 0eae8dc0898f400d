"""fsGroup: files of a pod's volumes belong to its group (pkg/volume, SetVolumeOwnership)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from atoll.kernel.openat2 import O_PATH

FILE_BITS = 0o660
DIRECTORY_BITS = 0o2770  # setgid: what is made inside keeps the group


def give_to_group(path: Path, group: int, *, only_if_root_differs: bool) -> None:
    """Every file below `path`. With fsGroupChangePolicy OnRootMismatch a root that is right already is taken for the whole."""
    if only_if_root_differs:
        found = path.stat()
        if found.st_gid == group and found.st_mode & DIRECTORY_BITS == DIRECTORY_BITS:
            return
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _, directories, files, directory in os.fwalk(".", dir_fd=root, follow_symlinks=False):
            for name in files:
                _give(name, directory, group, FILE_BITS)
            for name in directories:
                _give(name, directory, group, DIRECTORY_BITS)
        os.fchown(root, -1, group)
        os.fchmod(root, os.fstat(root).st_mode & 0o7777 | DIRECTORY_BITS)
    finally:
        os.close(root)


def _give(name: str, directory: int, group: int, bits: int) -> None:
    """By a descriptor: a pod that has the volume already may put a symlink to the host in the file's place at any moment."""
    try:
        fd = os.open(name, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return  # removed by such a pod
    try:
        mode = os.fstat(fd).st_mode
        os.chown(name, -1, group, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISLNK(mode):
            os.chmod(f"/proc/self/fd/{fd}", mode & 0o7777 | bits)
    finally:
        os.close(fd)
