"""A container's stack of directories: its own upper, the init layer, its image's layers.

The init layer holds the files and directories that others are mounted on (/etc/hosts, /dev, /proc ...). It is one for all containers
and lies below `upper`, so that mounting leaves no trace in what a container is seen to have changed, or in an image committed from it.
"""

from __future__ import annotations

import os
from pathlib import Path

from atoll.images import Image, ImageStore
from atoll.runtime import Overlay

_DIRECTORIES = ("dev", "dev/pts", "dev/shm", "etc", "proc", "sys")
_FILES = (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf")


def make_init_layer(path: Path) -> None:
    """Makes the layer where it is not there yet, or not whole."""
    path.mkdir(parents=True, exist_ok=True)
    for name in _DIRECTORIES:
        (path / name).mkdir(exist_ok=True)
        (path / name).chmod(0o755)
    for name in _FILES:
        (path / name).touch(mode=0o755)
    link = path / "etc/mtab"
    if not os.path.lexists(link):
        link.symlink_to("/proc/mounts")


def overlay(images: ImageStore, image: Image, init_layer: Path, upper: Path, work: Path) -> Overlay:
    return Overlay((init_layer, *images.snapshots.overlay_lowers(image)), upper, work)
