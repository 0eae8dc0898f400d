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
    above: list[tuple[str, str | None]] = []
    if upper is not None and work is not None:
        above = [("upperdir", str(upper)), ("workdir", str(work)), ("volatile", None)]
    try:
        mount = mounts.new_filesystem("overlay", [*(("lowerdir+", str(path)) for path in lower), *above])
    except SystemFailure as error:
        if error.errno != errno.EINVAL:
            raise
        return _old_way(lower, above)
    try:
        return os.open(".", _DIRECTORY, dir_fd=mount)
    finally:
        os.close(mount)


def _old_way(lower: Sequence[Path], above: Sequence[tuple[str, str | None]]) -> int:
    names = ":".join(str(path).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,") for path in lower)
    options = [f"lowerdir={names}", *(name if value is None else f"{name}={value}" for name, value in above)]
    target = tempfile.mkdtemp(prefix="atoll-root-")
    try:
        mounts.mount("overlay", target, "overlay", 0, ",".join(options))
        try:
            return os.open(target, _DIRECTORY)
        finally:
            mounts.unmount(target, mounts.MNT_DETACH)
    finally:
        os.rmdir(target)
