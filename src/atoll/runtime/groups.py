"""Ends, freezes and removes cgroups without the keeper waiting: what the kernel does in its own time is looked at again by timer.

A process may sit in uninterruptible sleep for minutes. Then its group is not empty, cannot be removed or does not stand frozen, and the
exits of all others must be told all the same.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

from atoll.errors import SystemFailure
from atoll.kernel.cgroups import Cgroup
from atoll.runtime.complain import complain
from atoll.runtime.loop import Loop

FREEZE_TIMEOUT_S = 2.0
REMOVE_TIMEOUT_S = 1.0
STUCK_S = 10.0  # after so long a group that does not end is complained of
STEP_S, STEP_MAX_S = 0.002, 1.0

Done = Callable[[SystemFailure | None], None]


class Groups:
    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._ending: dict[str, list[Callable[[], None]]] = {}  # path of a group to what waits for it to be gone

    def end(self, group: Cgroup) -> None:
        """Kill all in it and remove it, however long that takes."""
        if group.path not in self._ending:
            self._ending[group.path] = []
            self._end(group, time.monotonic(), STEP_S)

    def is_ending(self, path: str) -> bool:
        return path in self._ending

    def after(self, path: str, callback: Callable[[], None]) -> bool:
        """Whether the group at `path` is being ended; `callback` is called when it has."""
        waiting = self._ending.get(path)
        if waiting is None:
            return False
        waiting.append(callback)
        return True

    def _end(self, group: Cgroup, begun: float, step: float) -> None:
        try:
            is_gone = group.kill() and group.remove()
        except SystemFailure as error:
            complain(f"cgroup {group.path} is left as it is: {error}")
            is_gone = True
        if is_gone:
            for callback in self._ending.pop(group.path):
                callback()
            return
        waited = time.monotonic() - begun
        if waited < STUCK_S <= waited + step:
            complain(f"cgroup {group.path} cannot be emptied: processes {group.pids()} hang in the kernel")
        self._loop.later(step, lambda: self._end(group, begun, min(2 * step, STEP_MAX_S)))

    def remove(self, group: Cgroup, done: Done) -> None:
        """`done` gets SystemFailure (EBUSY) where processes stay in it; they are then ended with their group, in time."""
        if group.path in self._ending:
            done(None)
            return
        self._remove(group, time.monotonic() + REMOVE_TIMEOUT_S, done)

    def _remove(self, group: Cgroup, deadline: float, done: Done) -> None:
        try:
            is_gone = group.remove()
        except SystemFailure as error:
            done(error)
            return
        if is_gone:
            done(None)
        elif time.monotonic() > deadline:
            done(SystemFailure(f"remove cgroup {group.path}", errno.EBUSY))
        else:
            self._loop.later(STEP_S, lambda: self._remove(group, deadline, done))

    def freeze(self, group: Cgroup, done: Done) -> None:
        """Stop every process; `done` when they stand, or with SystemFailure (EBUSY), thawed again. Raises SystemFailure, NotSupported."""
        group.freeze()
        self._freeze(group, time.monotonic() + FREEZE_TIMEOUT_S, done)

    def _freeze(self, group: Cgroup, deadline: float, done: Done) -> None:
        try:
            if group.is_frozen():
                done(None)
                return
            if time.monotonic() > deadline:
                group.thaw()
                raise SystemFailure(f"freeze {group.path}", errno.EBUSY)
            group.freeze()  # v1 wants to be asked again after a fork
        except SystemFailure as error:
            done(error)
            return
        self._loop.later(STEP_S, lambda: self._freeze(group, deadline, done))
