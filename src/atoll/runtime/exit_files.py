"""Exits on disk, for whoever comes after the keeper: `exit.json` in the bundle, there whole or not at all.

A disk that is full, often because of the very container that has ended, must not hold an exit up: it is told from memory (and kept in the
process's record, which another keeper would find), and the file is tried again until there is room or the container is deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from atoll.runtime.complain import complain
from atoll.runtime.constants import EXIT_FILE
from atoll.runtime.loop import Loop

RETRY_S = 1.0


class ExitFiles:
    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._unsaved: dict[str, dict[str, Any]] = {}

    def discard(self, bundle: str) -> None:
        """That of an earlier run."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(bundle, EXIT_FILE))

    def save(self, bundle: str, ending: dict[str, Any]) -> None:
        try:
            _write(os.path.join(bundle, EXIT_FILE), ending)
        except FileNotFoundError:
            return  # the bundle is gone; those who ask the keeper still learn it
        except OSError as error:
            complain(f"{bundle}: the exit (code {ending['code']}) cannot be written, {error.strerror}: it is kept in memory")
            if not self._unsaved:
                self._loop.later(RETRY_S, self._retry)
            self._unsaved[bundle] = ending

    def forget(self, bundle: str) -> None:
        """The exit is known where it has to be."""
        ending = self._unsaved.pop(bundle, None)
        if ending is not None:
            _explain(bundle, ending)

    def _retry(self) -> None:
        for bundle, ending in list(self._unsaved.items()):
            try:
                _write(os.path.join(bundle, EXIT_FILE), ending)
            except FileNotFoundError:
                pass
            except OSError:
                break
            else:
                _explain(bundle, ending)
            del self._unsaved[bundle]
        if self._unsaved:
            self._loop.later(RETRY_S, self._retry)


def _explain(bundle: str, ending: dict[str, Any]) -> None:
    """Said afterwards: the keeper's log lies on the same disk."""
    lost = f"; {ending['lost_log_bytes']} bytes of its output were lost" if ending["lost_log_bytes"] else ""
    complain(f"{bundle}: the exit (code {ending['code']}) found the disk full, and was kept in memory{lost}")


def _write(path: str, ending: dict[str, Any]) -> None:
    try:
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, json.dumps(ending).encode())  # so few bytes are written whole, or there is no room for any
        finally:
            os.close(fd)
        os.replace(f"{path}.new", path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(f"{path}.new")
        raise
