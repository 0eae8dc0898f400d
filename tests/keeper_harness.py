"""The keeper, seen and killed from outside."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import time


def keeper_of(box):
    return int((box.instance.run / "keeper.pid").read_text())


def kill_keeper(box):
    """Kills it and waits until it is gone; its successor may not be there yet."""
    while True:
        keeper = keeper_of(box)
        try:
            pidfd = os.pidfd_open(keeper)
        except ProcessLookupError:
            time.sleep(0.001)  # it was killed before, and the next has not written its pid yet
            continue
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], 5)
        finally:
            os.close(pidfd)
        return keeper


async def until(truth, seconds=5.0):
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)
