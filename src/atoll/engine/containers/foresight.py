"""The next container's id, told to the keeper before anybody has asked for that container.

Where containers are started one after the other, the next is likely of the same kind as the last. Its id is drawn while the last one
starts, and the keeper makes a child wait for it (see runtime.spares). Who starts containers now and then pays nothing: a single start
foretells nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from atoll.engine.names import new_id
from atoll.runtime import Runtime
from atoll.runtime.constants import EXPECTED_S

_USABLE_S = EXPECTED_S / 2  # the rest is for the client, to have what it has created started


class Foresight:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._next: tuple[str, list[str], float] | None = None  # id, namespaces, and until when it may be used
        self._last_start = float("-inf")

    def take(self, namespaces: Sequence[str]) -> str:
        """The id of a container that is being created, and whose own `namespaces` (OCI types) are these; the keeper expects its start."""
        container_id = new_id()
        if self._next is not None and self._next[1] == list(namespaces) and time.monotonic() < self._next[2]:
            container_id, self._next = self._next[0], None
        self._runtime.expect(container_id, namespaces)
        return container_id

    def look(self, namespaces: Sequence[str]) -> None:
        """A container of these namespaces is being started: is another like it to follow?"""
        now = time.monotonic()
        is_one_of_many = now - self._last_start < _USABLE_S
        self._last_start = now
        if is_one_of_many and (self._next is None or now >= self._next[2]):
            self._next = (new_id(), list(namespaces), now + _USABLE_S)
            self._runtime.expect(self._next[0], namespaces)
