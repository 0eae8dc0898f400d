"""The engine's ends of a container's stdio: pipes whose other ends are handed to the keeper.

The keeper copies what the container writes into every attached pipe and what arrives on the stdin pipe into the container. A pipe closed
on this side is a client gone; end of file on `stdin` is the client's half-close. When a reader here stops reading, the keeper in time stops
reading the container: output is never dropped, so a writer that outruns its reader waits, as it would at a shell's pipe.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from types import TracebackType
from typing import Self

READ_SIZE = 256 * 1024


class PipeReader:
    """The reading end of a pipe on the running loop. One reader at a time."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def read(self, n: int = READ_SIZE) -> bytes:
        """At least one byte and at most `n`; b"" at end of file (the process ended, or the keeper let go), and after `close`."""
        while self._fd >= 0:
            try:
                return os.read(self._fd, n)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await _ready(self._fd, loop.add_reader, loop.remove_reader)
        return b""

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class PipeWriter:
    """The writing end of a pipe on the running loop. One writer at a time."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def write(self, data: bytes) -> bool:
        """Write all of it, waiting for room. False when nobody reads it any more (the process has ended or closed its stdin)."""
        view = memoryview(data)
        while view and self._fd >= 0:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await _ready(self._fd, loop.add_writer, loop.remove_writer)
            except BrokenPipeError:
                return False
        return not view

    def close(self) -> None:
        """End of file for the container, if it was started with `stdin_once` (or this is an exec)."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


async def _ready(fd: int, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    add(fd, _wake, future)
    try:
        await future
    finally:
        remove(fd)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Attach:
    """One attachment to a process: give it to `Runtime.start`, `exec` or `attach`, then use `stdin`, `stdout`, `stderr`.

    With a terminal everything comes on `stdout`. Streams not asked for are None. Cancel whoever reads or writes before `close`.
    """

    def __init__(self, *, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> None:
        self.stdin: PipeWriter | None = None
        self.stdout: PipeReader | None = None
        self.stderr: PipeReader | None = None
        self.is_lost = False  # the keeper was replaced by another, which does not know of it
        self._theirs: dict[str, int] = {}
        if stdin:
            self._theirs["stdin"], ours = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self.stdin = PipeWriter(ours)
        if stdout:
            ours, self._theirs["stdout"] = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self.stdout = PipeReader(ours)
        if stderr:
            ours, self._theirs["stderr"] = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self.stderr = PipeReader(ours)

    @property
    def keeper_ends(self) -> dict[str, int]:
        """Stream name to the descriptor that goes to the keeper."""
        return self._theirs

    def release_keeper_ends(self) -> None:
        """Once the keeper has taken them (or never will): only then does end of file travel."""
        for fd in self._theirs.values():
            os.close(fd)
        self._theirs = {}

    def close(self) -> None:
        self.release_keeper_ends()
        for end in (self.stdin, self.stdout, self.stderr):
            if end is not None:
                end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
