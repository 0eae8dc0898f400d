"""Fills a new volume with what the image has at the mount point."""

from __future__ import annotations

from pathlib import Path


def copy_up(source_fd: int, target: Path) -> bool:
    """Copies the directory open at `source_fd` into the empty directory `target`: owners, modes, times, xattrs, links, devices.

    The caller opens `source_fd` inside the image's root by openat2. Answers False, and copies nothing, where `target` is not empty.
    """
    raise NotImplementedError
