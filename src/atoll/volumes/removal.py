"""Removes a directory tree that a container wrote, however deep it is.

Nested directories are first moved up beside each other, so that neither recursion nor open descriptors nor the length of a path grows
with the
depth that someone inside chose. Symlinks are unlinked, never followed; a mount inside stops it.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from atoll.errors import SystemFailure


def remove_tree(path: Path) -> None:
    """Idempotent. Raises SystemFailure naming the tree."""
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _remove(parent, path.name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SystemFailure(f"remove {path}", error.errno or 0) from error
    finally:
        os.close(parent)


def _remove(parent: int, name: str) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        return
    root = _open_directory(name, parent)
    prefix = f".removed-{secrets.token_hex(8)}-"  # not to be guessed, lest a name in the tree is in the way
    try:
        moved = _empty(root, root, prefix, 0)
        done = 0
        while done < moved:
            flat = f"{prefix}{done}"
            directory = _open_directory(flat, root)
            try:
                moved = _empty(directory, root, prefix, moved)
            finally:
                os.close(directory)
            os.rmdir(flat, dir_fd=root)
            done += 1
    finally:
        os.close(root)
    os.rmdir(name, dir_fd=parent)


def _empty(directory: int, root: int, prefix: str, moved: int) -> int:
    """Unlinks files, moves directories to `root` under new names; answers how many have been moved so far."""
    with os.scandir(directory) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            os.rename(entry.name, f"{prefix}{moved}", src_dir_fd=directory, dst_dir_fd=root)
            moved += 1
        else:
            os.unlink(entry.name, dir_fd=directory)
    return moved


def _open_directory(name: str, parent: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
