"""subPath: a part of a volume, pinned so that no symlink in the volume can lead the mount elsewhere (CVE-2017-1002101, CVE-2021-25741).

The part is opened inside the volume by openat2, made when it is missing, and bound from that descriptor to a place of the kubelet's own;
containers mount that place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from atoll.errors import SystemFailure
from atoll.kernel import inroot, mounts
from atoll.node.volumes.errors import VolumeError


def bind(volume: Path, subpath: str, target: Path) -> Path:
    """Bind `subpath` of `volume` to `target`, a path of ours; answers `target`. Raises VolumeError."""
    if subpath.startswith("/") or ".." in subpath.split("/"):
        raise VolumeError(f"invalid subPath {subpath!r}: it must be relative and stay inside the volume")
    root = os.open(volume, os.O_PATH | os.O_CLOEXEC)
    try:
        try:
            part = inroot.open_path(root, subpath)
        except FileNotFoundError:
            part = inroot.make_directory(root, subpath, 0o755)
        try:
            _attach(part, target)
        finally:
            os.close(part)
    except OSError as error:
        raise VolumeError(f"failed to prepare subPath {subpath!r} of {volume}: {error.strerror}") from error
    finally:
        os.close(root)
    return target


def _attach(part: int, target: Path) -> None:
    unbind(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISDIR(os.fstat(part).st_mode):
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    tree = mounts.clone_tree(str(target), recursive=True, at=part)
    try:
        place = os.open(target, os.O_PATH | os.O_CLOEXEC)
        try:
            mounts.attach(tree, place, str(target))
        finally:
            os.close(place)
    finally:
        os.close(tree)


def unbind(target: Path) -> None:
    """Idempotent."""
    try:
        mounts.unmount(str(target), mounts.MNT_DETACH)
    except SystemFailure as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    with contextlib.suppress(FileNotFoundError, OSError):
        target.rmdir() if target.is_dir() else target.unlink()
