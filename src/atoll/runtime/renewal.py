"""A keeper of newer code, without a container noticing: the holder executes the new program in its own place.

Its pid stays, so containers stay its children; its descriptors stay, so nothing is closed; the keeper that program clones takes over as
after a death. The order (the program and how to call it) lies in a memory file, since the keeper that gets it is not who carries it out.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable

from atoll.runtime.complain import complain
from atoll.runtime.records import open_descriptors

NAME = "atoll-renewal"


def leave_order(command: list[str], environment: dict[str, str], program: int) -> None:
    """For the holder. `program` is copied; `command` lacks its last word, the descriptors inherited."""
    order = os.memfd_create(NAME, os.MFD_CLOEXEC)
    text = {"command": command, "environment": environment, "program": os.dup(program)}
    os.pwrite(order, json.dumps(text).encode(), 0)


def follow_order(foundation: Iterable[int]) -> None:
    """Be the new program. Returns where that cannot be: the keeper is then as old as before."""
    for fd, target in open_descriptors():
        if not target.startswith(f"/memfd:{NAME} "):
            continue
        with contextlib.suppress(ValueError):
            order = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
            os.close(fd)
            try:
                for other, _ in open_descriptors():
                    with contextlib.suppress(OSError):
                        os.set_inheritable(other, True)
                os.execve(f"/proc/self/fd/{order['program']}", [*order["command"], ",".join(map(str, foundation))], order["environment"])
            except OSError as error:
                complain(f"the keeper cannot be renewed, {error.strerror}: it goes on as it is")
