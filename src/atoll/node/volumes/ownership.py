"""fsGroup: files of a pod's volumes belong to its group (pkg/volume, SetVolumeOwnership)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

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
    found = os.lstat(name, dir_fd=directory)
    os.chown(name, -1, group, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(name, found.st_mode & 0o7777 | bits, dir_fd=directory)
