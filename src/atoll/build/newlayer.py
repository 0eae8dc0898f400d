"""The directories that become layers: begun in the scratch area, and set to one time where a build is to be reproducible."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from atoll.images.extract import Extractor, Policy
from atoll.images.tar import Entry, Kind
from atoll.units import NS

DIRECTORY_MODE = 0o755


@contextmanager
def new_layer(scratch: Path) -> Iterator[tuple[Path, int]]:
    """An empty directory and a descriptor of it; it stays where the block ends well, and goes where it fails."""
    directory = Path(tempfile.mkdtemp(prefix="step-", dir=scratch))
    directory.chmod(DIRECTORY_MODE)  # it becomes a root directory
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield directory, fd
        finally:
            os.close(fd)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def layer_of(
    paths: Sequence[tuple[str, Kind]], lowers: Sequence[Path], scratch: Path, now_ns: int, owner: tuple[int, int] = (0, 0)
) -> Path:
    """A layer of empty directories and files of OWNER's; directories on the way to them look as they do in LOWERS, top first. Blocks."""
    with new_layer(scratch) as (directory, root), Extractor(root, Policy(), lowers) as extractor:
        for path, kind in paths:
            extractor.add(Entry(os.fsencode(path), kind, DIRECTORY_MODE, *owner, 0, now_ns), iter(()))
        extractor.finish()
    return directory


def clamp_times(directory: Path, epoch: int) -> None:
    """Nothing below DIRECTORY is younger than EPOCH, seconds since 1970 (reproducible-builds.org, SOURCE_DATE_EPOCH). Blocks."""
    limit = epoch * NS
    for _, directories, files, fd in os.fwalk(directory, topdown=False, follow_symlinks=False):
        for name in (*files, *directories):
            if os.stat(name, dir_fd=fd, follow_symlinks=False).st_mtime_ns > limit:
                os.utime(name, ns=(limit, limit), dir_fd=fd, follow_symlinks=False)
