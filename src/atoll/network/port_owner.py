"""Who has a port of this machine, for the message that says it is taken: proc(5) tells sockets by inode, and whose descriptors they are.

Looked up only once something has failed; what cannot be told is left out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_LISTENING = {"tcp": "0A", "udp": "07"}  # states of a socket that waits for others, include/net/tcp_states.h


def process_on(protocol: str, port: int, proc: Path = Path("/proc")) -> str:
    """Such as "process 1234 (nginx)"; "" where nobody is found."""
    inodes = {f"socket:[{inode}]" for inode in _inodes(protocol, port, proc)}
    if not inodes:
        return ""
    for directory in proc.iterdir():
        if directory.name.isdigit() and _has_any(directory / "fd", inodes):
            with contextlib.suppress(OSError):
                return f"process {directory.name} ({(directory / 'comm').read_text().strip()})"
    return ""


def _inodes(protocol: str, port: int, proc: Path) -> Iterator[str]:
    for family in ("", "6"):
        try:
            rows = (proc / "net" / f"{protocol}{family}").read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTENING[protocol] and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _has_any(descriptors: Path, wanted: set[str]) -> bool:
    with contextlib.suppress(OSError):
        for name in os.listdir(descriptors):
            with contextlib.suppress(OSError):
                if os.readlink(descriptors / name) in wanted:
                    return True
    return False
