"""Runs a blocking iterator in a thread of its own, a few pieces ahead of its reader.

Reading, decompressing and hashing let go of the interpreter's lock, and so does the kernel's work for each file of a layer: two threads
use two processors, where one would do all in turn.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Final

DEPTH: Final = 8  # pieces; what a worker may be ahead by


@contextmanager
def ahead(pieces: Iterable[bytes], depth: int = DEPTH) -> Iterator[Iterator[bytes]]:
    """`pieces`, made in another thread. Leaving the `with` early stops it after the piece it is at, and waits for that.

    What the iterator raises, the reader gets.
    """
    worker = _Worker(pieces, depth)
    worker.start()
    try:
        yield worker.results()
    finally:
        worker.stop()


class _Worker(threading.Thread):
    def __init__(self, pieces: Iterable[bytes], depth: int) -> None:
        super().__init__(name="ahead", daemon=True)
        self._pieces = pieces
        self._free = threading.Semaphore(depth)
        self._made: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self._stopped = False

    def run(self) -> None:
        try:
            for piece in self._pieces:
                self._free.acquire()
                if self._stopped:
                    return
                self._made.put(piece)
        except BaseException as error:  # the boundary of a thread: its reader raises it
            self._made.put(error)
        else:
            self._made.put(None)

    def results(self) -> Iterator[bytes]:
        while True:
            made = self._made.get()
            if made is None:
                return
            if isinstance(made, BaseException):
                raise made
            self._free.release()
            yield made

    def stop(self) -> None:
        self._stopped = True
        self._free.release()
        self.join()
