"""`docker run --init`: a first process that does nothing but start the program, pass signals on to it and bury orphans.

The container's init forks the program's process and becomes `docker_init`, confined like the program. Where that cannot be, the forked
image of the keeper itself does the same.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import NoReturn

from atoll.kernel import prctl, title
from atoll.runtime import docker_init


def become(start: Callable[[], NoReturn], words: list[str], descriptors: set[int]) -> NoReturn:
    """Call `start`, which executes the program `words`, in a child; then live as its init and end as it ends.

    `descriptors` are those open beside 0, 1 and 2, the status socket above all: its closing tells that the program runs.
    """
    signals = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    prctl.set_name(docker_init.NAME)
    child = os.fork()
    if child == 0:
        _take_terminal()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        start()
    shown = [f"/sbin/{docker_init.NAME}", "--", *words]
    docker_init.execute(child, shown)
    title.write(shown)
    for fd in descriptors:
        os.close(fd)
    while True:
        number = signal.sigwait(signals)
        if number != signal.SIGCHLD:
            _pass_on(child, number)
            continue
        status = _bury(child)
        if status is not None:
            os._exit(status)


def _bury(child: int) -> int | None:
    """Reap whoever has died; the exit status to end with, once `child` is among them."""
    answer = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return answer
        if pid == 0:
            return answer
        if pid == child:
            answer = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _pass_on(child: int, number: int) -> None:
    try:
        os.kill(child, number)
    except ProcessLookupError:
        return


def _take_terminal() -> None:
    """A process group of its own, in the foreground if there is a terminal: Ctrl-C is for the program, not for its init."""
    os.setpgid(0, 0)
    if os.isatty(0):
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpgrp())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
