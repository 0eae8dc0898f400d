"""Content that two stores of one instance have is on disk once: both name the same file.

The engine's content and the instance's registry keep blobs by digest and never write one again, so a hard link is all that sharing takes:
each collects and checks its own names, and the disk has the bytes back with the last of them.
"""

from __future__ import annotations

import os
from pathlib import Path

from atoll.config import Instance


def engine_blobs(instance: Instance) -> Path:
    """The engine's blobs: <here>/sha256/<hex>."""
    return instance.content / "blobs"


def registry_root(instance: Instance) -> Path:
    """The root of the registry that shares the instance's content; its blobs lie in <here>/blobs/sha256/<hex>."""
    return instance.home / "registry"


def link(directory: Path, digest: str, size: int, target: Path) -> bool:
    """Names what DIRECTORY has of that digest and size `target` as well; False where it has none, or another file system holds it.

    `digest` must have been checked: it becomes a path.
    """
    algorithm, _, digits = digest.partition(":")
    source = directory / algorithm / digits
    try:
        if source.stat().st_size != size:
            return False
        os.link(source, target)
    except FileExistsError:
        return True
    except OSError:  # it was collected just now, lies on another disk, or has too many names: then a copy it is
        return False
    return True
