"""Output on its way from a pipe to a log, so that a keeper killed at any instant neither loses nor doubles a byte of it.

What is read from a pipe is gone from it, so it is read into shared memory, which outlives the keeper. Beside it stands how far it has
come: how much was asked for, how much was read, the time its records carry, and how much of them is in the file. The next keeper makes the
very same records of it again and writes what is missing.

Between the end of a read and the note of it lie a few instructions; whether the read took place is then seen by the bytes themselves: the
end of the place asked for was filled with a secret before, and the kernel overwrites all of it or nothing. (How much there is to read was
asked before; nobody else reads.)
"""

from __future__ import annotations

import mmap
import os
import select
import struct
import termios
from fcntl import ioctl
from typing import Any

from atoll.runtime.logs import READ_SIZE, LogFile
from atoll.runtime.records import Record

NAME = "atoll-journal"
_STREAMS = ("stdout", "stderr")
_SECRET_SIZE = 16
_SECRET_AT = READ_SIZE
_STATE_AT = READ_SIZE + 64
_SIZE = READ_SIZE + 4096
_STATE = struct.Struct("@7q")  # turn, record, stream, read, stamp, size of the file before the write, bytes of records written before it
_ASKED_AT = _STATE_AT + _STATE.size
_NUMBER = struct.Struct("@q")
_READ_AT, _STAMP_AT, _WRITE_AT = _STATE_AT + 24, _STATE_AT + 32, _STATE_AT + 40
_WRITE = struct.Struct("@2q")
_UNKNOWN = -1


class Journal:
    """One for a keeper: it has one thread, so one piece of output is on its way at a time."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = os.memfd_create(NAME, os.MFD_CLOEXEC) if fd is None else fd
        os.ftruncate(self.fd, _SIZE)
        self._memory = mmap.mmap(self.fd, _SIZE)
        self._view = memoryview(self._memory)
        self.turn = self._state()[0] + 1
        self._secret = os.urandom(_SECRET_SIZE)

    def read(self, fd: int, record: Record, stream: str) -> bytes:
        """As os.read does: what is there, b"" at the end, BlockingIOError where there is nothing yet."""
        available = _available(fd)
        if not available:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if poll.poll(0) == [(fd, select.POLLHUP)]:
                return b""
            available = _available(fd)  # asking a terminal has brought out what was on its way
            if not available:
                raise BlockingIOError
        size = min(available, READ_SIZE)
        memory = self._memory
        marked = min(size, _SECRET_SIZE)
        memory[_SECRET_AT : _SECRET_AT + _SECRET_SIZE] = self._secret
        memory[size - marked : size] = self._secret[:marked]
        self.turn += 1
        _STATE.pack_into(memory, _STATE_AT, self.turn, record.fd, _STREAMS.index(stream), _UNKNOWN, 0, _UNKNOWN, 0)
        _NUMBER.pack_into(memory, _ASKED_AT, size)
        try:
            size = os.readv(fd, [self._view[:size]])
        except OSError:
            self.done()
            raise
        _NUMBER.pack_into(memory, _READ_AT, size)
        return memory[:size]

    def begin(self, record: Record, stream: str) -> None:
        """A turn in which nothing is read: the unfinished line goes into the file as it is."""
        self.turn += 1
        _STATE.pack_into(self._memory, _STATE_AT, self.turn, record.fd, _STREAMS.index(stream), 0, 0, _UNKNOWN, 0)
        _NUMBER.pack_into(self._memory, _ASKED_AT, 1)

    def stamp(self, now_ns: int) -> None:
        _NUMBER.pack_into(self._memory, _STAMP_AT, now_ns)

    def writing(self, size: int, written: int) -> None:
        """A write to the file, now of `size` bytes, comes next; `written` bytes of the records are in it already."""
        _WRITE.pack_into(self._memory, _WRITE_AT, _UNKNOWN, written)
        _NUMBER.pack_into(self._memory, _WRITE_AT, size)

    def written(self, written: int) -> None:
        _NUMBER.pack_into(self._memory, _WRITE_AT, _UNKNOWN)
        _NUMBER.pack_into(self._memory, _WRITE_AT + 8, written)

    def done(self) -> None:
        """What was read is where it belongs."""
        _NUMBER.pack_into(self._memory, _ASKED_AT, 0)

    def left(self) -> Left | None:
        """What the last keeper was about when it died."""
        asked = _NUMBER.unpack_from(self._memory, _ASKED_AT)[0]
        if not asked:
            return None
        turn, record, stream, size, stamp, file_size, written = self._state()
        if size == _UNKNOWN:
            marked = min(asked, _SECRET_SIZE)
            if self._memory[asked - marked : asked] == self._memory[_SECRET_AT : _SECRET_AT + marked]:
                return None  # it was not read: it is still in the pipe
            size = asked
        return Left(turn, record, _STREAMS[stream], self._memory[:size], stamp, file_size, written)

    def _state(self) -> tuple[Any, ...]:
        return _STATE.unpack_from(self._memory, _STATE_AT)


def _available(fd: int) -> int:
    count: int = struct.unpack("@i", ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0]
    return count


class Left:
    """A piece of output that was under way: of the process whose `record` is open as that descriptor.

    Without `data` it was the unfinished line that was on its way into the file.
    """

    def __init__(self, turn: int, record: int, stream: str, data: bytes, stamp_ns: int, file_size: int, written: int) -> None:
        self.turn = turn
        self.record = record
        self.stream = stream
        self.data = data
        self.stamp_ns = stamp_ns
        self.file_size = file_size
        self.written = written


class KeptLog(LogFile):
    """A log whose writing another keeper can finish."""

    def __init__(self, path: str, max_size: int | None, max_files: int | None, journal: Journal) -> None:
        super().__init__(path, max_size, max_files)
        self._journal = journal
        self._record: Record | None = None
        self._written = 0  # bytes of the records of this turn
        self._skip = 0  # bytes of them that the last keeper has written

    def keep_in(self, record: Record) -> None:
        """Where the unfinished lines are to be kept."""
        self._record = record

    def take_up(self, record: Record) -> None:
        """The unfinished lines of the last keeper."""
        self._record = record
        for stream in _STREAMS:
            _, line = record.line(stream)
            if line:
                self._partial[stream] = line

    def read(self, fd: int, stream: str) -> bytes:
        if self._record is None:
            return super().read(fd, stream)
        return self._journal.read(fd, self._record, stream)

    def write(self, stream: str, data: bytes, now_ns: int | None = None) -> None:
        before = self._partial.get(stream, b"")
        super().write(stream, data, now_ns)
        self._keep_line(stream, before)
        self._journal.done()

    def resume(self, left: Left) -> None:
        """Finish what the last keeper was about."""
        assert self._record is not None
        self._journal.turn = left.turn  # it is the same turn, should we die in it, too
        turn, _ = self._record.line(left.stream)
        if turn != left.turn:  # else its last step but one was done
            self._skip = left.written
            if left.file_size != _UNKNOWN:
                self._skip += max(self._size - left.file_size, 0)
            if left.data:
                self.write(left.stream, left.data, left.stamp_ns or None)
            elif left.stream in self._partial:
                self.flush_stream(left.stream, left.stamp_ns or None)
        self._skip = 0
        self._journal.done()

    def flush_stream(self, stream: str, now_ns: int | None = None) -> None:
        before = self._partial[stream]
        if self._record is not None and not self._skip:
            self._journal.begin(self._record, stream)
        super().flush_stream(stream, now_ns)
        self._keep_line(stream, before)
        self._journal.done()

    def _keep_line(self, stream: str, before: bytes) -> None:
        after = self._partial.get(stream, b"")
        if (before or after) and self._record is not None and self._record.fd >= 0:
            self._record.put_line(stream, self._journal.turn, after)

    def _now(self) -> int:
        now = super()._now()
        self._journal.stamp(now)
        return now

    def _append(self, records: bytes) -> None:
        skipped, self._skip = self._skip, 0
        self._written = min(skipped, len(records))
        super()._append(records[skipped:])

    def _write(self, records: bytes) -> None:
        self._journal.writing(self._size, self._written)
        super()._write(records)
        self._written += len(records)
        self._journal.written(self._written)
