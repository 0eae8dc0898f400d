"""The process above the keeper: it does nothing but stay, so that the keeper may die.

It shares its table of descriptors with the keeper (clone(2), CLONE_FILES). Whatever the keeper has open, be it pipes, terminals, pidfds,
the listening socket or the records of its containers, is still open when the keeper has been killed, without a word said about it at any
start. It is a subreaper, so the keeper's containers become its children then, and it passes their exits on to the next keeper, which it
clones at once from its own image: no interpreter is started, nothing is imported, and nothing of what the dead one may have spoiled in its
memory is there.

A child is reaped only after its exit was passed on, so a holder killed in between loses nothing either: the keeper, which sees it go, takes
its place (see `keeper.main`) and clones the next.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
from collections.abc import Callable

from atoll.kernel import memory, prctl, processes, title
from atoll.runtime.complain import complain

NAME = "atoll-holder"
DEATH = struct.Struct("=ii")  # pid, status as of os.waitpid
ENDED, RENEW = 0, 75  # exit codes of a keeper that is not to be followed by its like
QUICK_S = 1.0  # a keeper that lives no longer than this has died of itself
QUICK_MAX = 5  # so many in a row are followed at once
PAUSE_FIRST_S, PAUSE_MAX_S = 0.1, 5.0
FULL_S = 0.01  # until the keeper has read of the deaths there are


class Holder:
    """`deaths` is the writing end of a pipe that the keeper reads; `renew` replaces this process by its successor, or returns."""

    def __init__(self, home: str, deaths: int, renew: Callable[[], None]) -> None:
        self.pid = 0
        self.keepers = 0
        self._home = home
        self._deaths = deaths
        self._renew = renew

    def hold(self) -> None:
        """Be the holder from now on. Returns in each keeper, never in the holder."""
        self.pid = os.getpid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the keeper gets it, too, when the machine goes down
        prctl.set_child_subreaper()
        prctl.set_name(NAME)
        title.write([NAME, self._home])  # of its own: who looks for the keeper shall not find both
        with contextlib.suppress(OSError):
            memory.give_back()  # before there is a keeper: it opens a file, and from then on the table of descriptors is the keeper's
        quick = 0
        while True:
            self.keepers += 1
            begun = time.monotonic()
            keeper = processes.clone(share_files=True)
            if not keeper:
                return
            code = os.waitstatus_to_exitcode(self._end_of(keeper))
            if code == ENDED:
                os._exit(0)
            if code == RENEW:
                self._renew()
                continue
            complain(f"the keeper, process {keeper}, ended ({code}); its containers run on, and another takes over")
            quick = quick + 1 if time.monotonic() - begun < QUICK_S else 0
            if quick > QUICK_MAX:
                time.sleep(min(PAUSE_FIRST_S * 2 ** (quick - QUICK_MAX), PAUSE_MAX_S))

    def _end_of(self, keeper: int) -> int:
        """Pass on how others end until the keeper does; its status."""
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            pid, status = os.waitpid(keeper, os.WNOHANG)
            if pid:
                return status
            if ended is None:
                continue
            try:
                os.write(self._deaths, DEATH.pack(ended.si_pid, wait_status(ended)))
            except BlockingIOError:
                time.sleep(FULL_S)
                continue
            os.waitpid(ended.si_pid, 0)


def wait_status(ended: os.waitid_result) -> int:
    """What os.waitpid would have given."""
    if ended.si_code == os.CLD_EXITED:
        return ended.si_status << 8
    return ended.si_status | (0x80 if ended.si_code == os.CLD_DUMPED else 0)
