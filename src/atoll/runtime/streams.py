"""Bytes between a process and whoever listens: output fanned out to the log and the attached, input merged from the attached.

An attached reader that falls behind by more than BACKLOG_MAX stops the reading of that output until it has caught up, as a full pipe
would: what was promised to it is never dropped, and the keeper's memory stays bounded.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from atoll.runtime.logs import READ_SIZE, LogFile
from atoll.runtime.loop import NOTHING, READ, WRITE, Loop

INPUT_SIZE = 64 * 1024
BACKLOG_MAX = 256 * 1024  # bytes owed to one attached reader


class Listener:
    """An attached reader: the writing end of its pipe, and what it has not taken yet."""

    def __init__(self, loop: Loop, fd: int, on_change: Callable[[], None]) -> None:
        self._loop = loop
        self._fd = fd
        self._backlog = bytearray()
        self._on_change = on_change
        self._ending = False
        os.set_blocking(fd, False)
        loop.add(fd, NOTHING, self._ready)  # a reader that goes away is an error event

    @property
    def is_behind(self) -> bool:
        return len(self._backlog) > BACKLOG_MAX

    @property
    def is_gone(self) -> bool:
        return self._fd < 0

    def write(self, data: bytes) -> None:
        if self._fd < 0:
            return
        if self._backlog:
            self._backlog += data
            return
        written = self._try(data)
        if self._fd >= 0 and written < len(data):
            self._backlog += data[written:]
            self._loop.change(self._fd, WRITE)

    def end(self) -> None:
        """No more will come: close as soon as all is taken."""
        self._ending = True
        if not self._backlog:
            self._close()

    def _ready(self, events: int) -> None:
        if not events & WRITE:
            self._backlog.clear()
            self._close()
            self._on_change()
            return
        del self._backlog[: self._try(self._backlog)]
        if self._fd >= 0 and not self._backlog:
            self._loop.change(self._fd, NOTHING)
            if self._ending:
                self._close()
        self._on_change()

    def _try(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            self._backlog.clear()
            self._close()
            return 0

    def _close(self) -> None:
        if self._fd >= 0:
            self._loop.remove(self._fd)
            os.close(self._fd)
            self._fd = -1


class Output:
    """One stream out of a process: a pipe's reading end or a terminal's master."""

    def __init__(self, loop: Loop, fd: int, name: str, log: LogFile | None) -> None:
        self.on_close: Callable[[], None] = _nothing  # called while the descriptor is still open
        self._loop = loop
        self._fd = fd
        self._name = name
        self._log = log
        self._listeners: list[Listener] = []
        self._paused = False
        os.set_blocking(fd, False)
        loop.add(fd, READ, self._ready)

    def attach(self, fd: int) -> None:
        self._listeners.append(Listener(self._loop, fd, self._check))
        if self._fd < 0:
            self._end_listeners()

    def drain(self) -> None:
        """The process is gone: take what is left in the pipe, then close. Bounded by the pipe's size, whoever else may still write."""
        left = 4 * READ_SIZE
        while self._fd >= 0 and left > 0:
            taken = self._take()
            if not taken:
                break
            left -= taken
        self.close()

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            if not self._paused:
                self._loop.remove(self._fd)
            self.on_close()
            os.close(self._fd)
            self._fd = -1
        self._end_listeners()

    def _end_listeners(self) -> None:
        for listener in self._listeners:
            listener.end()
        self._listeners = []

    def _ready(self, events: int) -> None:
        if events & READ:
            self._take()
        else:
            self.close()  # hung up, and nothing left to read

    def _take(self) -> int:
        try:
            data = os.read(self._fd, READ_SIZE) if self._log is None else self._log.read(self._fd, self._name)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal nobody holds any more
                raise
            data = b""
        if not data:
            self.close()
            return 0
        if self._log is not None:
            self._log.write(self._name, data)
        if self._listeners:
            for listener in self._listeners:
                listener.write(data)
            self._check()
        return len(data)

    def _check(self) -> None:
        self._listeners = [listener for listener in self._listeners if not listener.is_gone]
        behind = any(listener.is_behind for listener in self._listeners)
        if self._fd < 0 or behind == self._paused:
            return
        self._paused = behind
        # Removed and not only muted: a hang-up cannot be muted and would spin the loop.
        if behind:
            self._loop.remove(self._fd)
        else:
            self._loop.add(self._fd, READ, self._ready)


class Input:
    """The stream into a process. With `close_once` the first attached writer to end ends it."""

    def __init__(self, loop: Loop, fd: int, *, close_once: bool) -> None:
        self.on_close: Callable[[], None] = _nothing  # called while the descriptor is still open
        self._loop = loop
        self._fd = fd
        self._close_once = close_once
        self._sources: set[int] = set()
        self._pending = b""
        os.set_blocking(fd, False)
        loop.add(fd, NOTHING, self._writable)

    def attach(self, fd: int) -> None:
        if self._fd < 0:
            os.close(fd)
            return
        os.set_blocking(fd, False)
        self._sources.add(fd)
        self._loop.add(fd, NOTHING if self._pending else READ, lambda _: self._read(fd))

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove(self._fd)
            self.on_close()
            os.close(self._fd)
            self._fd = -1
        for fd in self._sources:
            self._loop.remove(fd)
            os.close(fd)
        self._sources.clear()
        self._pending = b""

    def _read(self, fd: int) -> None:
        if self._pending:
            return  # a hang-up, told although we do not read now; the end comes when the rest is written
        try:
            data = os.read(fd, INPUT_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove(fd)
            os.close(fd)
            self._sources.discard(fd)
            if self._close_once:
                self.close()
            return
        self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._fd, data)
        except BlockingIOError:
            written = 0
        except OSError:
            self.close()  # the process has closed its stdin
            return
        was_pending, self._pending = bool(self._pending), data[written:]
        if bool(self._pending) != was_pending:
            self._hold(hold=bool(self._pending))

    def _hold(self, *, hold: bool) -> None:
        """While the process does not read, neither do we."""
        self._loop.change(self._fd, WRITE if hold else NOTHING)
        for fd in self._sources:
            if hold:
                self._loop.remove(fd)
            else:
                self._loop.add(fd, READ, lambda _, fd=fd: self._read(fd))  # type: ignore[misc]

    def _writable(self, events: int) -> None:
        if self._pending and events & WRITE:
            self._write(self._pending)
        elif not events & WRITE:
            self.close()


def _nothing() -> None:
    return
