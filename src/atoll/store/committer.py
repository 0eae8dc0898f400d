"""The thread that writes: one job at a time on its own connection, each answered on the loop that gave it.

A commit waits for the disk, and the loop must not. What a job costs beyond that wait is the interpreter's lock: the thread has to take it
back from a loop that is busy, once for every call that let go of it. So a job should be one call, such as one INSERT of many rows, which
outside of a transaction is a transaction of its own.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable

Job = Callable[[sqlite3.Connection], object]
Answer = Callable[[sqlite3.Error | None], None]


class Committer:
    """Owns `connection`. Every method on the loop that made it."""

    def __init__(self, name: str, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[Job, Answer] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job, answer: Answer) -> None:
        """Run `job` after those before it, then `answer` on the loop, with what SQLite raised."""
        self._jobs.put((job, answer))

    async def close(self) -> None:
        """Finish the jobs at hand, and give their answers."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # the last answers are on the loop's list already
        self._connection.close()

    def _run(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, answer = entry
            failure: sqlite3.Error | None = None
            try:
                job(self._connection)
            except sqlite3.Error as error:
                failure = error
            self._loop.call_soon_threadsafe(answer, failure)
