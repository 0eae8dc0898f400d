"""One client attached to a process: what it writes, what it reads, and the keys by which it leaves.

`Session` joins the pipes of an `atoll.runtime.Attach` into one flow of (stream, bytes). `frame` puts Docker's eight-byte header before a
piece, so that stdout and stderr share a connection where there is no terminal. `DetachKeys` watches typed input for the sequence (Ctrl-P
Ctrl-Q by default) that ends the attachment and not the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import string
import struct
from collections.abc import AsyncIterator, Iterable

from atoll.errors import InvalidInput
from atoll.runtime import Attach
from atoll.runtime.attach import PipeReader

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_NUMBERS = {"stdin": 0, "stdout": 1, "stderr": 2}
_HEADER = struct.Struct(">B3xI")
QUEUED_MAX = 16  # pieces read ahead of a slow client; beyond, the process waits at its pipe

Piece = tuple[str, bytes]


def frame(stream: str, data: bytes) -> bytes:
    """Docker's raw-stream framing: the stream's number, three zeros, the length in big-endian, the data."""
    return _HEADER.pack(_NUMBERS[stream], len(data)) + data


def frames(pieces: Iterable[Piece]) -> bytes:
    """Many of them, joined."""
    pack, numbers = _HEADER.pack, _NUMBERS
    return b"".join([part for stream, data in pieces for part in (pack(numbers[stream], len(data)), data)])


class Session:
    """Whoever makes one closes it."""

    def __init__(self, attach: Attach, *, is_mute: bool = False) -> None:
        """`is_mute`: the client wants no output, which is read all the same, since its end tells that the process has ended."""
        self.attach = attach
        self.is_mute = is_mute

    async def output(self) -> AsyncIterator[Piece]:
        """What the process writes, until it ends or the session is closed."""
        readers = [(name, pipe) for name, pipe in (("stdout", self.attach.stdout), ("stderr", self.attach.stderr)) if pipe is not None]
        if len(readers) == 1:
            name, pipe = readers[0]
            while data := await pipe.read():
                yield name, data
            return
        queue: asyncio.Queue[Piece | None] = asyncio.Queue(QUEUED_MAX)
        tasks = [asyncio.create_task(_read(name, pipe, queue), name=f"read {name}") for name, pipe in readers]
        try:
            open_pipes = len(tasks)
            while open_pipes:
                piece = await queue.get()
                if piece is None:
                    open_pipes -= 1
                else:
                    yield piece
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def send(self, data: bytes) -> bool:
        """To the process's stdin; False once nobody reads it."""
        return self.attach.stdin is not None and await self.attach.stdin.write(data)

    def close_input(self) -> None:
        if self.attach.stdin is not None:
            self.attach.stdin.close()

    def close(self) -> None:
        self.attach.close()


async def _read(name: str, pipe: PipeReader, queue: asyncio.Queue[Piece | None]) -> None:
    try:
        while data := await pipe.read():
            await queue.put((name, data))
    finally:
        with contextlib.suppress(asyncio.QueueFull):
            queue.put_nowait(None)


class DetachKeys:
    """Finds the detach sequence in typed input, byte by byte, holding back what may be its beginning."""

    def __init__(self, keys: str = "") -> None:
        self._sequence = parse_keys(keys or DEFAULT_DETACH_KEYS)
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence is complete (what follows it is dropped)."""
        passed = bytearray()
        for byte in data:
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return bytes(passed), True
                continue
            passed += self._sequence[: self._matched]
            self._matched = 0
            if byte == self._sequence[0]:
                self._matched = 1
            else:
                passed.append(byte)
        return bytes(passed), False


def parse_keys(text: str) -> bytes:
    """Reads "ctrl-p,ctrl-q" or "a,b" as bytes. Raises InvalidInput."""
    sequence = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            sequence.append(ord(key))
        elif key.startswith("ctrl-") and len(key) == 6 and key[5] in string.ascii_letters + "@[\\]^_":
            sequence.append(ord(key[5].upper()) - 64)
        elif key == "DEL":
            sequence.append(127)
        else:
            raise InvalidInput(f"Invalid escape keys ({text}) provided")
    return bytes(sequence)
