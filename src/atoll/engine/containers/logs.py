"""The log of a container, read back: `docker logs` with since, until, tail, timestamps and follow.

The keeper writes one line for each line of output in CRI's format, "2026-01-02T03:04:05.123456789Z stdout F text". Every field before the
text has a fixed width, so that a line is cut by offsets and times compare as bytes. Rotated files (`<log>.1` and up, the highest the
oldest) are read first, all of them opened before the first is read, so that no rotation meanwhile loses or repeats a line. Following waits
for inotify; the end of the container, told by the caller, ends it after a last look.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path

from atoll import units
from atoll.kernel.inotify import IN_CREATE, IN_DELETE_SELF, IN_MODIFY, IN_MOVE_SELF, Watch

BLOCK = 256 * 1024  # bytes read at a time
_TIME_END = 30  # "2026-01-02T03:04:05.123456789Z"
_STREAM = slice(31, 37)  # "stdout" or "stderr"
_TAG = 38  # "F": ends with a newline; "P": the next piece goes on
_FULL = ord("F")
_TEXT = 40

Piece = tuple[str, bytes]
"""A stream's name and a line (or a piece of a long one), its newline included."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a log is wanted. Times are nanoseconds since 1970; `tail` None means all."""

    stdout: bool = True
    stderr: bool = True
    since_ns: int | None = None
    until_ns: int | None = None
    tail: int | None = None
    timestamps: bool = False
    details: bytes = b""  # put before each line, after its time: what the log options chose of labels and environment


class _Filter:
    """Log lines to pieces, by the selection. Holds what must be known from one block to the next."""

    def __init__(self, selection: Selection) -> None:
        self._names = {name.encode(): name for name, wanted in (("stdout", selection.stdout), ("stderr", selection.stderr)) if wanted}
        self._since = units.timestamp(max(selection.since_ns, 0)).encode() if selection.since_ns else b""
        self._until = units.timestamp(selection.until_ns).encode() if selection.until_ns else b""
        self._timestamps = selection.timestamps
        self._details = selection.details
        self._inside: set[str] = set()  # streams whose last piece did not end its line
        self.is_over = False

    def __call__(self, lines: list[bytes]) -> list[Piece]:
        if self._timestamps or self._since or self._until or self._details:
            return list(self._one_by_one(lines))
        names = self._names  # a long log is read at the speed of this expression
        return [
            (names[line[_STREAM]], line[_TEXT:] + b"\n" if line[_TAG] == _FULL else line[_TEXT:])
            for line in lines
            if line[_STREAM] in names and len(line) >= _TEXT
        ]

    def _one_by_one(self, lines: list[bytes]) -> Iterator[Piece]:
        for line in lines:
            name = self._names.get(line[_STREAM])
            if name is None or len(line) < _TEXT or line[:_TIME_END] < self._since:
                continue
            if self._until and line[:_TIME_END] > self._until:
                self.is_over = True
                return
            text = line[_TEXT:]
            if name not in self._inside:
                text = self._details + text
                if self._timestamps:
                    text = line[: _TIME_END + 1] + text
            if line[_TAG] == _FULL:
                text += b"\n"
                self._inside.discard(name)
            else:
                self._inside.add(name)
            yield name, text


def _opened_since(log: Path, known: int = -1) -> list[io.BufferedReader]:
    """The log's files that are newer than the one with the inode `known`, the oldest first; all of them where that one has gone.

    A rotation in between shows a file twice, by two names: the inode tells.
    """
    found: list[io.BufferedReader] = []
    seen = {known}
    for number in itertools.count():
        try:
            file = (log.with_name(f"{log.name}.{number}") if number else log).open("rb")
        except FileNotFoundError:
            if number:
                break
            continue  # between two renames
        inode = os.fstat(file.fileno()).st_ino
        if inode not in seen:
            seen.add(inode)
            found.append(file)
            continue
        file.close()
        if inode == known:
            break
    return found[::-1]


async def read(log: Path, selection: Selection, ended: Awaitable[object] | None = None) -> AsyncIterator[list[Piece]]:
    """Batches of pieces. With `ended` (the container's end) it goes on with what is written until then; else it ends with the file."""
    select = _Filter(selection)
    if ended is not None:
        _touch(log)
    chain = _opened_since(log)
    try:
        _skip(chain, selection)
        async for lines in _follow(log, chain, ended) if ended is not None and chain else _all(chain):
            if pieces := select(lines):
                yield pieces
                await asyncio.sleep(0)  # a long log must not hold up the loop
            if select.is_over:
                return
    finally:
        for file in chain:
            file.close()


async def _all(chain: list[io.BufferedReader]) -> AsyncIterator[list[bytes]]:
    for file in chain:
        for lines in _blocks(file):
            yield lines


def _blocks(file: io.BufferedReader) -> Iterator[list[bytes]]:
    """Whole lines without their newlines; the file is left before an unfinished one."""
    rest = b""
    while block := file.read(BLOCK):
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        if lines:
            yield lines
    if rest:
        file.seek(-len(rest), os.SEEK_CUR)


async def _follow(log: Path, chain: list[io.BufferedReader], ended: Awaitable[object]) -> AsyncIterator[list[bytes]]:
    """Reads `chain` to its end, and the files that follow it. One that has been read is let go: it would take disk for ever."""
    with contextlib.ExitStack() as stack:
        follower = stack.enter_context(contextlib.closing(_Growth(log)))
        end = asyncio.ensure_future(ended)
        stack.callback(end.cancel)
        while True:
            is_over = end.done()
            file = chain[0]
            for lines in _blocks(file):
                yield lines
            if len(chain) == 1:
                chain += _opened_since(log, os.fstat(file.fileno()).st_ino)
                for lines in _blocks(file):  # what came before it was moved
                    yield lines
            if len(chain) > 1:
                chain.pop(0).close()
                follower.watch()
            elif is_over:
                return
            else:
                await follower.wait(end)


def _touch(log: Path) -> None:
    """So that there is something to watch before the first line comes."""
    with contextlib.suppress(FileNotFoundError):  # removed with its container
        os.close(os.open(log, os.O_CREAT | os.O_CLOEXEC, 0o600))


class _Growth:
    """Waits until a log is written to or rotated."""

    def __init__(self, log: Path) -> None:
        self._log = str(log)
        self._inotify = Watch()
        self._woken = asyncio.Event()
        try:
            self._inotify.also(os.path.dirname(self._log), IN_CREATE)  # a rotation leaves a moment without a log
            self.watch()
        except BaseException:
            self._inotify.close()
            raise
        asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._fired)

    def watch(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._inotify.watch(self._log, IN_MODIFY | IN_MOVE_SELF | IN_DELETE_SELF)
        self._woken.set()  # what was written before the watch stood

    def _fired(self) -> None:
        self._inotify.drain()
        self._woken.set()

    async def wait(self, end: asyncio.Future[object]) -> None:
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait((woken, end), return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        self._woken.clear()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._inotify.fileno())
        self._inotify.close()


def _skip(chain: list[io.BufferedReader], selection: Selection) -> None:
    """Takes from `chain` what lies before the last `tail` lines (of the wanted streams), and sets its first file to their beginning."""
    if selection.tail is None or not chain:
        return
    streams = {name for name, chosen in ((b"stdout", selection.stdout), (b"stderr", selection.stderr)) if chosen}
    found, begin = 0, (0, 0)
    if selection.tail <= 0:
        begin = len(chain) - 1, chain[-1].seek(0, os.SEEK_END)
    else:
        for index, offset, line in _backward(chain):
            if line[_STREAM] not in streams or len(line) < _TEXT:
                continue
            if line[_TAG] == _FULL or found == 0:
                found += 1
            if found > selection.tail:
                break
            begin = index, offset
    for file in chain[: begin[0]]:
        file.close()
    del chain[: begin[0]]
    for file in chain:
        file.seek(0)
    chain[0].seek(begin[1])


def _backward(chain: list[io.BufferedReader]) -> Iterator[tuple[int, int, bytes]]:
    for index in range(len(chain) - 1, -1, -1):
        for offset, line in _lines_backward(chain[index]):
            yield index, offset, line


def _lines_backward(file: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Offset and text of each whole line, the last first."""
    start = file.seek(0, os.SEEK_END)
    rest = b""  # read, but its line begins further ahead in the file
    while start > 0:
        size = min(BLOCK, start)
        start -= size
        file.seek(start)
        data = file.read(size) + rest
        *lines, unfinished = data.split(b"\n")
        if not lines:
            rest = unfinished
            continue
        offset = start + len(data) - len(unfinished)
        for line in reversed(lines[1:]):
            offset -= len(line) + 1
            yield offset, line
        rest = lines[0] + b"\n"
    if rest.endswith(b"\n"):
        yield 0, rest[:-1]
