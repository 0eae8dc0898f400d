"""An overlay that is mounted nowhere: a root to look into by descriptor, gone when the descriptor is closed.

A detached mount stands in no mount table, so that nothing of it can be left behind, not even by a kill. It needs Linux 6.5 ("lowerdir+",
one call a layer); an older kernel is served by a mount at a temporary directory that is detached as soon as it is open.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from atoll.errors import SystemFailure
from atoll.kernel import mounts

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_overlay(lower: Sequence[Path], upper: Path | None = None, work: Path | None = None) -> int:
    """A directory descriptor on the merged root; `lower` has the top first. Without `upper` it is read-only. Raises SystemFailure.

    With `upper` the mount is `volatile`: closing it does not sync the whole file system below.
    """
    if upper is None and len(lower) == 1:
        return os.open(lower[0], _DIRECTORY)  # the kernel refuses to merge a single layer with nothing
    above = _writable(upper, work)
    try:
        mount = mounts.new_filesystem("overlay", [*_layers(lower), *above])
    except SystemFailure as error:
        if error.errno != errno.EINVAL:
            raise
        return _old_way(lower, above)
    try:
        return os.open(".", _DIRECTORY, dir_fd=mount)
    finally:
        os.close(mount)


def mount_overlay(target: Path, lower: Sequence[Path], upper: Path | None = None, work: Path | None = None) -> None:
    """The same root at a directory of ours, for those who can only be given a path. Raises SystemFailure."""
    above = _writable(upper, work)
    try:
        mount = mounts.new_filesystem("overlay", [*_layers(lower), *above])
    except SystemFailure as error:
        if error.errno != errno.EINVAL:
            raise
        mounts.mount("overlay", str(target), "overlay", 0, _old_options(lower, above))
        return
    place = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mounts.attach(mount, place, str(target))
    finally:
        os.close(place)
        os.close(mount)


def _layers(lower: Sequence[Path]) -> list[tuple[str, str | None]]:
    return [("lowerdir+", str(path)) for path in lower]


def _writable(upper: Path | None, work: Path | None) -> list[tuple[str, str | None]]:
    if upper is None or work is None:
        return []
    return [("upperdir", str(upper)), ("workdir", str(work)), ("volatile", None)]


def _old_options(lower: Sequence[Path], above: Sequence[tuple[str, str | None]]) -> str:
    names = ":".join(str(path).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,") for path in lower)
    return ",".join([f"lowerdir={names}", *(name if value is None else f"{name}={value}" for name, value in above)])


def _old_way(lower: Sequence[Path], above: Sequence[tuple[str, str | None]]) -> int:
    target = tempfile.mkdtemp(prefix="atoll-root-")
    try:
        mounts.mount("overlay", target, "overlay", 0, _old_options(lower, above))
        try:
            return os.open(target, _DIRECTORY)
        finally:
            mounts.unmount(target, mounts.MNT_DETACH)
    finally:
        os.rmdir(target)
