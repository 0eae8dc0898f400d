"""What reading, removing and packing a layer's tree share: the marks overlayfs leaves, and removal by descriptor."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from atoll.kernel.openat2 import open_in_root

OPAQUE = "trusted.overlay.opaque"  # Documentation/filesystems/overlayfs.rst, "Whiteouts and opaque directories"


def is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def remove_below(parent: int, name: bytes) -> None:
    """Removes a directory and all in it. rmtree holds descriptors and follows no symlink, whatever moves meanwhile."""
    shutil.rmtree(name, dir_fd=parent)


def remove_tree(path: Path) -> None:
    """Removes a directory or a file of our own, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_in_root(root: int, path: str) -> None:
    """Removes what is at `path` below the directory `root`, not following a symlink at its end; nothing where there is nothing."""
    directory, _, name = os.fsencode(path.strip("/")).rpartition(b"/")
    try:
        parent = open_in_root(root, directory or b".", os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            remove_below(parent, name)
        else:
            os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    finally:
        os.close(parent)
