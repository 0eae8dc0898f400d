"""What a tar's members are, whoever reads (tarreader.py), writes (tarheader.py) or makes files of them (extract.py)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from atoll.errors import InvalidInput

BLOCK = 512
NS = 1_000_000_000


class Kind(enum.Enum):
    FILE = "regular file"
    LINK = "hard link"
    SYMLINK = "symbolic link"
    CHARACTER = "character device"
    BLOCK = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"


class TarError(InvalidInput):
    """The archive is broken or uses what no layer needs."""


@dataclass(slots=True)
class Entry:
    """One member. `size` is what the file will have, holes included; `stored` what the archive holds of it."""

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    sparse: list[tuple[int, int]] | None = None
    stored: int = 0

    def __str__(self) -> str:
        return self.name.decode("utf-8", "backslashreplace")
