"""One terminal or pipe joined to one container stream: raw mode, window size, detach keys, and Docker's multiplexed frames.

Frames (Docker Engine API, "Attach"): one byte of stream (0 in, 1 out, 2 err), three zeros, four bytes of length, big-endian. A container
with a terminal sends raw bytes instead.
"""

from __future__ import annotations

import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

READ = 1 << 16
HEADER = 8
DETACH_DEFAULT = "ctrl-p,ctrl-q"


class Detached(Exception):
    """The user typed the detach keys: the container runs on."""


def detach_sequence(text: str | None) -> bytes:
    """`ctrl-p,ctrl-q` or `a,ctrl-x` to bytes. Raises ValueError naming the wrong key."""
    keys = bytearray()
    for key in (text or DETACH_DEFAULT).split(","):
        name = key.removeprefix("ctrl-")
        if name != key and len(name) == 1:
            keys.append(ord(name.upper()) ^ 0x40)
        elif len(key) == 1:
            keys.append(ord(key))
        else:
            raise ValueError(f"Unknown character: '{key}'")
    return bytes(keys)


class RawTerminal:
    """Standard input in raw mode while the block runs; a no-op where it is no terminal."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted and os.isatty(0)
        self._saved: list[object] | None = None

    def __enter__(self) -> None:
        if self._wanted:
            import termios
            import tty

            self._saved = termios.tcgetattr(0)
            tty.setraw(0)

    def __exit__(self, *_: object) -> None:
        if self._saved is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]


def size() -> tuple[int, int]:
    """Columns and lines of the terminal on standard output (or input); 0, 0 where there is none."""
    for fd in (1, 0):
        try:
            columns, lines = os.get_terminal_size(fd)
        except OSError:
            continue
        return columns, lines
    return 0, 0


def on_resize(callback: Callable[[int, int], None]) -> None:
    """Call back with the new size each time the window changes."""
    import signal

    signal.signal(signal.SIGWINCH, lambda *_: callback(*size()))


class Demultiplexer:
    """Docker's frames to standard output and error, across reads that cut them anywhere.

    A log comes as one frame a line: those of one stream that follow each other are written at once.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> None:
        buffer = self._rest + data if self._rest else data
        offset, last = 0, len(buffer) - HEADER
        fd = 1
        parts: list[bytes] = []
        while offset <= last:
            start = offset + HEADER
            end = start + int.from_bytes(buffer[offset + 4 : start], "big")
            if end > len(buffer):
                break
            target = 2 if buffer[offset] == 2 else 1
            if target != fd:
                write_all(fd, b"".join(parts))
                fd, parts = target, []
            parts.append(buffer[start:end])
            offset = end
        write_all(fd, b"".join(parts))
        self._rest = buffer[offset:]


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def join(sock: socket, first: bytes, *, tty: bool, stdin: bool, detach_keys: bytes = b"") -> None:
    """Pump standard input to SOCK and SOCK to standard output and error until the container's side ends.

    The end of standard input half-closes the socket and output goes on. Raises Detached when the detach keys are typed (terminals only).
    """
    show = (lambda data: write_all(1, data)) if tty else Demultiplexer().feed
    if first:
        show(first)
    sys.stdout.flush()
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    if stdin:
        poller.register(0, select.POLLIN)
    keys = _Keys(detach_keys if tty and os.isatty(0) else b"")
    while True:
        for fd, _ in poller.poll():
            if fd == sock.fileno():
                data = sock.recv(READ)
                if not data:
                    return
                show(data)
                continue
            data = os.read(0, READ)
            if not data:
                poller.unregister(0)
                _half_close(sock)
                continue
            try:
                sock.sendall(keys.filter(data))
            except (BrokenPipeError, ConnectionResetError):
                poller.unregister(0)


def _half_close(sock: socket) -> None:
    from _socket import SHUT_WR
    from contextlib import suppress

    # the other side has gone first
    with suppress(OSError):
        sock.shutdown(SHUT_WR)


class _Keys:
    """Looks for the detach sequence in what is typed; typed prefixes of it are held back until they prove to be something else."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    def filter(self, data: bytes) -> bytes:
        if not self._sequence:
            return data
        out = bytearray()
        for byte in data:
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    raise Detached
                continue
            out += self._sequence[: self._matched]
            self._matched = 0
            out.append(byte)
        return bytes(out)
