"""A root that is not its mount namespace's: what `chroot` leaves of a machine.

pivot_root there moves a subtree and leaves the namespace's own root as it was, to which setns(CLONE_NEWNS) then leads every process that
joins: an exec would land on the host (setns(2), pivot_root(2)). So a process in a chroot first gives its namespace, a copy made for it
alone, the chroot as the root.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from atoll.errors import NotSupported, SystemFailure
from atoll.kernel import mounts, processes

_OWN: Final = "/proc/self/ns/mnt"
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def is_inside() -> bool:
    """Whether we are in one. We go and look, so it is for a process with a single thread; one that may not go counts as outside."""
    inside, here = os.open("/", _DIRECTORY), os.open(".", _DIRECTORY)
    try:
        try:
            processes.join_path(_OWN, processes.NEWNS)
        except (OSError, SystemFailure):
            return False
        try:
            outside = os.open("/", _DIRECTORY)
        finally:
            os.fchdir(inside)
            os.chroot(".")
            os.fchdir(here)
        try:
            return _place(outside) != _place(inside)
        finally:
            os.close(outside)
    finally:
        os.close(inside)
        os.close(here)


def become_root() -> None:
    """Make the chroot the root of our mount namespace, which must be ours alone. Mounts of the host go on arriving in what was shared.

    Raises SystemFailure, NotSupported (the namespace's own root is an initramfs, which cannot be exchanged).
    """
    inside = os.open("/", _DIRECTORY)
    tree = mounts.clone_tree("/", recursive=True)  # before its mounts are cut off from the host's
    try:
        mounts.set_attributes(tree, propagation=mounts.MS_PRIVATE)
        processes.join_path(_OWN, processes.NEWNS)
        mounts.propagate("/", mounts.MS_PRIVATE)
        mounts.attach(tree, inside, "/")
        mounts.pivot_root(tree)
    except SystemFailure as error:
        if error.errno == errno.EINVAL and error.what == "pivot_root":
            raise NotSupported(
                "this process is in a chroot of an initramfs, whose root cannot be exchanged: "
                "start the engine outside the chroot, or make the chroot with pivot_root (unshare --mount; pivot_root)"
            ) from error
        raise
    finally:
        os.close(tree)
        os.close(inside)


def _place(directory: int) -> tuple[str, int]:
    """Mount and inode: a directory bound elsewhere is another place."""
    with open(f"/proc/self/fdinfo/{directory}", encoding="ascii") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return fields["mnt_id"].strip(), os.fstat(directory).st_ino
