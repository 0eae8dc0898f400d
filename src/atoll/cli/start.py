"""Start this instance's engine in the background and return when it answers.

The daemon gets one end of a pipe and writes to it when its socket listens, or dies and closes it: no polling, no guessed delays.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys

from atoll.home import home_directory

START_TIMEOUT_S = 30  # a first start compiles the seccomp filter and may wait for a slow disk
LAST_WORDS = 2000  # bytes of the daemon's log shown when it dies


def start_engine(arguments: tuple[str, ...] = ()) -> None:
    """Raises EngineUnreachable with the daemon's last words where it does not come up."""
    from atoll.cli.wire import EngineUnreachable

    home = home_directory(os.environ)
    os.makedirs(os.path.join(home, "logs"), mode=0o700, exist_ok=True)
    log = os.path.join(home, "logs", "engine.log")
    ready, done = os.pipe()
    with open(log, "ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            [python(), "-P", "-m", "atoll.node.daemon", "--ready-fd", str(done), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(done,),
            start_new_session=True,
            cwd="/",
        )
    os.close(done)
    try:
        answered, _, _ = select.select([ready], [], [], START_TIMEOUT_S)
        if answered and os.read(ready, 1):
            return
    finally:
        os.close(ready)
    # A pipe that closed without a byte: the daemon is on its way out.
    state = f"ended with status {process.wait(START_TIMEOUT_S)}" if answered else "did not answer in time"
    with open(log, "rb") as written:
        written.seek(begin)
        words = written.read()[-LAST_WORDS:].decode(errors="replace").strip()
    raise EngineUnreachable(f"the engine {state}" + (f":\n{words}" if words else "") + f"\nIts log: {log}")


def python() -> str:
    """The interpreter with Atoll's packages: the environment's own, also where the launcher runs its base with -S."""
    return os.environ.get("ATOLL_PYTHON") or sys.executable
