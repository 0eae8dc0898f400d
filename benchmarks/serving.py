"""An API server in a process of its own: its pickled configuration comes by stdin, "ready" goes out once it serves, TERM ends it."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys

from atoll import process
from atoll.apiserver import serve


async def main() -> None:
    config = pickle.load(sys.stdin.buffer)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with process.loading():
        serving = await serve(config)
    os.write(1, b"ready\n")
    await stop.wait()
    await serving.close()


if __name__ == "__main__":
    process.run(main())
