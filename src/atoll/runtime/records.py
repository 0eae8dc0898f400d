"""What the next keeper must know of each process, written where the death of this one does not reach.

A record is a little memory file, held open. The keeper's table of descriptors is shared with its holder (see `holder`), so when the keeper
dies its records, and the pipes, terminals and pidfds whose numbers they hold, stay open; its successor finds them by their name in
/proc/self/fd. Memory and not a file: a full disk must not lose an exit.

A record is a version, the length of a JSON object that never changes, numbers of eight bytes (a write of so few is done whole or not at
all), the object, and at fixed places the unfinished last lines of output.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from typing import Any

NAME = "atoll-process"
VERSION = 1
NUMBERS = (
    "pid",
    "wait_status",  # -1 until it has ended
    "ended_ns",
    "ready",  # 1 once the child has said that execve comes next
    "started_ns",  # 0 until execve has succeeded
    "status",  # descriptors from here on, -1 where there is none
    "pidfd",
    "stdin",
    "stdout",
    "stderr",
    "terminal",
)
DESCRIPTORS = NUMBERS[5:]
NOTHING = -1
LINE_MAX = 64 * 1024  # bytes of an unfinished line; the log cuts long before
_HEAD = struct.Struct("=II")
_NUMBER = struct.Struct("=q")
_ALL = struct.Struct(f"={len(NUMBERS)}q")
_AT = {name: _HEAD.size + index * _NUMBER.size for index, name in enumerate(NUMBERS)}
_OBJECT_AT = _HEAD.size + _ALL.size
_LINES_AT = {"stdout": 1 << 20, "stderr": 2 << 20}  # sparse: costs memory only where something is written
_LINE_HEAD = struct.Struct("=QII")  # the journal's turn, bytes, which of the two slots
_SLOTS_AT = 4096


class Record:
    """One process: its `fixed` object and its numbers."""

    __slots__ = ("_slots", "fd", "fixed")

    def __init__(self, fd: int, fixed: dict[str, Any]) -> None:
        self.fd = fd
        self.fixed = fixed
        self._slots: dict[str, int] = {}  # stream to the slot that holds its line

    @classmethod
    def make(cls, fixed: dict[str, Any], **numbers: int) -> Record:
        text = json.dumps(fixed).encode()
        fd = os.memfd_create(NAME, os.MFD_CLOEXEC)
        values = [numbers.get(name, NOTHING if name in DESCRIPTORS or name == "wait_status" else 0) for name in NUMBERS]
        os.pwrite(fd, _HEAD.pack(VERSION, len(text)) + _ALL.pack(*values) + text, 0)
        return cls(fd, fixed)

    @classmethod
    def open(cls, fd: int) -> Record | None:
        """None where its writer died before it was whole, or is newer than we are."""
        head = os.pread(fd, _HEAD.size, 0)
        if len(head) < _HEAD.size:
            return None
        version, size = _HEAD.unpack(head)
        if version != VERSION:
            return None
        try:
            return cls(fd, json.loads(os.pread(fd, size, _OBJECT_AT)))
        except ValueError:
            return None

    def numbers(self) -> dict[str, int]:
        return dict(zip(NUMBERS, _ALL.unpack(os.pread(self.fd, _ALL.size, _HEAD.size)), strict=True))

    def set(self, name: str, *values: int) -> None:
        """The number of that name, and those that come after it where there are several values."""
        if self.fd >= 0:
            os.pwrite(self.fd, b"".join(map(_NUMBER.pack, values)), _AT[name])

    def put_line(self, stream: str, turn: int, line: bytes) -> None:
        """Keep the unfinished last line of a stream as it is after the journal's `turn`."""
        at = _LINES_AT[stream]
        slot = self._slots.get(stream, 0)
        if line:  # into the other slot: a death in the middle leaves the line of now whole
            slot ^= 1
            os.pwrite(self.fd, line, at + _SLOTS_AT + slot * LINE_MAX)
        os.pwrite(self.fd, _LINE_HEAD.pack(turn, len(line), slot), at)
        self._slots[stream] = slot

    def line(self, stream: str) -> tuple[int, bytes]:
        """(turn, unfinished line)."""
        at = _LINES_AT[stream]
        head = os.pread(self.fd, _LINE_HEAD.size, at)
        if len(head) < _LINE_HEAD.size:
            return 0, b""
        turn, size, slot = _LINE_HEAD.unpack(head)
        self._slots[stream] = slot
        return turn, os.pread(self.fd, size, at + _SLOTS_AT + slot * LINE_MAX)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def found() -> list[Record]:
    """Every record among our open descriptors."""
    records = []
    for fd, target in open_descriptors():
        if target.startswith(f"/memfd:{NAME} "):
            record = Record.open(fd)
            if record is not None:
                records.append(record)
    return records


def open_descriptors() -> list[tuple[int, str]]:
    """(number, what /proc shows of it)."""
    listed = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            listed.append((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return listed
