"""A container's log in CRI format, `<RFC 3339 time, nanoseconds> stdout|stderr F|P <text>`, with rotation.

A batch of lines is turned into records by one replace, in C, and written by one write: 250 MB/s and more, where a loop over lines gives
20. A line longer than LINE_MAX is cut into P records, so that a gigabyte without a newline costs no memory; text still without its
newline at the end is a P record too, so that reading back gives the very bytes.
"""

from __future__ import annotations

import os
import time

from atoll.runtime.complain import complain

LINE_MAX = 16 * 1024  # bytes; Docker's and containerd's cut
READ_SIZE = 256 * 1024  # bytes at a time
MODE = 0o640


class LogFile:
    """`max_size` in bytes (None: no limit), `max_files` counts the current one too."""

    def __init__(self, path: str, max_size: int | None, max_files: int | None) -> None:
        self._path = path
        self._max_size = max_size or 0
        self._max_files = max(1, max_files or 1)
        self._fd = -1
        self._size = 0
        self._open()
        self._partial: dict[str, bytes] = {}
        self._second = -1
        self._stamp = ""
        self.lost_bytes = 0  # could not be written: disk full
        self._is_losing = False

    def read(self, fd: int, stream: str) -> bytes:
        """From a stream's pipe, as os.read does; `write` of what it gives must follow."""
        return os.read(fd, READ_SIZE)

    def write(self, stream: str, data: bytes, now_ns: int | None = None) -> None:
        """Take what a process wrote. Never raises and never blocks on anything but the disk."""
        partial = self._partial.pop(stream, b"")
        if partial:
            data = partial + data
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        prefix = self._prefix(stream, now_ns)
        records = b""
        if end:
            records = _full_lines(data[: end - 1], prefix)
        while len(rest) > LINE_MAX:
            records += prefix + b"P " + rest[:LINE_MAX] + b"\n"
            rest = rest[LINE_MAX:]
        if rest:
            self._partial[stream] = rest
        if records:
            self._append(records)

    def flush(self) -> None:
        """What has no newline yet becomes a record as it stands."""
        for stream in list(self._partial):
            self.flush_stream(stream)

    def flush_stream(self, stream: str, now_ns: int | None = None) -> None:
        self._append(self._prefix(stream, now_ns) + b"P " + self._partial[stream] + b"\n")
        del self._partial[stream]

    def close(self) -> None:
        self.flush()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _now(self) -> int:
        return time.time_ns()

    def _prefix(self, stream: str, now_ns: int | None = None) -> bytes:
        second, fraction = divmod(self._now() if now_ns is None else now_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._stamp}.{fraction:09d}Z {stream} ".encode()

    def _append(self, records: bytes) -> None:
        """Writes whole records; a file takes more than `max_size` only where a single record does."""
        while self._max_size and self._size + len(records) > self._max_size:
            room = max(self._max_size - self._size, 0)
            end = records.rfind(b"\n", 0, room) + 1
            if not end and not self._size:
                end = records.index(b"\n") + 1
            self._write(records[:end])
            records = records[end:]
            if not records:
                return
            self._rotate()
            if self._size:
                break  # it could not be moved, and grows on
        self._write(records)

    def _write(self, records: bytes) -> None:
        """A full disk is not the container's fault: it goes on, and what does not fit is counted and told of once."""
        written = 0
        try:
            if self._fd < 0:
                self._open()
            while written < len(records):
                written += os.write(self._fd, records[written:] if written else records)
        except OSError as error:
            written = self._cut(records[:written])
            if not self._is_losing:
                complain(f"log {self._path}: {error.strerror}: output is lost until there is room")
            self._is_losing = True
            self.lost_bytes += len(records) - written
        else:
            if self._is_losing:
                complain(f"log {self._path}: there is room again; {self.lost_bytes} bytes of output were lost in all")
            self._is_losing = False
        self._size += written

    def _cut(self, written: bytes) -> int:
        """Take half a record away, or the next one would be its end; the bytes that stay."""
        whole = written.rfind(b"\n") + 1
        if whole < len(written):
            os.ftruncate(self._fd, self._size + whole)
        return whole

    def _rotate(self) -> None:
        os.close(self._fd)
        self._fd = -1
        try:
            for number in range(self._max_files - 1, 0, -1):
                older = self._path if number == 1 else f"{self._path}.{number - 1}"
                if os.path.exists(older):
                    os.replace(older, f"{self._path}.{number}")
            if self._max_files == 1:
                os.unlink(self._path)
        except OSError:
            pass  # _append sees it by the size
        try:
            self._open()
        except OSError:
            self._size = 0  # the next write tries again

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        self._size = os.fstat(self._fd).st_size


def _full_lines(data: bytes, prefix: bytes) -> bytes:
    """`data` is lines without the last one's newline."""
    if _has_long_line(data):
        return b"".join(_cut_line(line, prefix) for line in data.split(b"\n"))
    full = prefix + b"F "
    return full + data.replace(b"\n", b"\n" + full) + b"\n"


def _has_long_line(data: bytes) -> bool:
    start, size = 0, len(data)
    while size - start > LINE_MAX:
        newline = data.rfind(b"\n", start, start + LINE_MAX + 1)
        if newline < 0:
            return True
        start = newline + 1
    return False


def _cut_line(line: bytes, prefix: bytes) -> bytes:
    pieces = [line[start : start + LINE_MAX] for start in range(0, len(line), LINE_MAX)] or [b""]
    return b"".join(prefix + (b"P " if piece is not pieces[-1] else b"F ") + piece + b"\n" for piece in pieces)
