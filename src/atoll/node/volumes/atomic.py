"""Files of a volume that change all at once, by the layout the kubelet made known (pkg/volume/util, AtomicWriter).

    ..2026_01_02_03_04_05.123456789/app.conf     the files
    ..data -> ..2026_01_02_03_04_05.123456789    replaced by rename
    app.conf -> ..data/app.conf                  what the container reads

Programs watch `..data` to be told of a change.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DATA = "..data"


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    mode: int
    owner: int | None = None


def write(directory: Path, files: Mapping[str, File], *, group: int | None = None) -> bool:
    """Make `directory` hold `files` (by relative path). `group` is the pod's fsGroup. False where nothing had to change."""
    wanted = {path: _for_group(file, group) for path, file in files.items()}
    if _holds(directory, wanted, group):
        return False
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S", time.gmtime()) + f".{secrets.randbelow(10**9):09d}"
    fresh = directory / stamp
    fresh.mkdir()
    fresh.chmod(0o755)
    for path, file in wanted.items():
        _write_file(fresh, path, file, group)
    before = _current(directory)
    link = directory / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(stamp)
    os.replace(link, directory / DATA)
    _link_tops(directory, {path.partition("/")[0] for path in wanted})
    if before is not None and before != fresh:
        shutil.rmtree(before, ignore_errors=True)
    if group is not None:
        os.chown(directory, -1, group)
        directory.chmod(0o2775)
    return True


def _for_group(file: File, group: int | None) -> File:
    """Members of the fsGroup may read, whatever the mode says (volume.SetVolumeOwnership on a read-only volume)."""
    return file if group is None else File(file.content, file.mode | 0o440, file.owner)


def _write_file(root: Path, path: str, file: File, group: int | None) -> None:
    target = root / path
    for parent in reversed(target.relative_to(root).parents):
        step = root / parent
        if not step.is_dir():
            step.mkdir()
            step.chmod(0o755)
    target.write_bytes(file.content)
    if file.owner is not None or group is not None:
        os.chown(target, file.owner if file.owner is not None else -1, group if group is not None else -1)
    target.chmod(file.mode)


def _current(directory: Path) -> Path | None:
    try:
        return directory / os.readlink(directory / DATA)
    except OSError:
        return None


def _holds(directory: Path, wanted: Mapping[str, File], group: int | None) -> bool:
    current = _current(directory)
    if current is None or not current.is_dir():
        return False
    found = {str(path.relative_to(current)) for path in current.rglob("*") if not path.is_dir()}
    if found != set(wanted):
        return False
    for path, file in wanted.items():
        target = current / path
        stat = target.stat()
        if target.read_bytes() != file.content or stat.st_mode & 0o7777 != file.mode & 0o7777:
            return False
        if group is not None and stat.st_gid != group:
            return False
    return True


def _link_tops(directory: Path, names: set[str]) -> None:
    for name in names:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(f"{DATA}/{name}")
    for entry in directory.iterdir():
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in names:
            with contextlib.suppress(FileNotFoundError):
                entry.unlink()
