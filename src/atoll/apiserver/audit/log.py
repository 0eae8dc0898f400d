"""The audit log's file: lines gathered for a moment, written in one piece, and put aside when the file has grown large."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path

from atoll.errors import SystemFailure

GATHER_S = 0.05  # how long a line may wait for others
log = logging.getLogger(__name__)


class AuditLog:
    """`megabytes` is the size at which the file is put aside as <name>-<time>.<suffix>; of those the newest `backups` stay."""

    def __init__(self, path: Path, megabytes: int = 100, backups: int = 10) -> None:
        self._path = path
        self._limit = megabytes << 20
        self._backups = backups
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        try:
            self._fd = self._open()
        except OSError as error:
            raise SystemFailure(f"open the audit log {path}", error.errno or 0) from error
        self._size = os.fstat(self._fd).st_size

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def write(self, line: bytes) -> None:
        self._lines.append(line + b"\n")
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        content, self._lines = b"".join(self._lines), []
        if not content:
            return
        try:
            if self._size and self._size + len(content) > self._limit:
                self._rotate()
            view = memoryview(content)
            while view:
                view = view[os.write(self._fd, view) :]
            self._size += len(content)
        except OSError as error:  # as upstream: requests are served all the same, and the loss is told of
            log.error("the audit log %s cannot be written, events are lost: %s", self._path, error)  # noqa: TRY400

    def _rotate(self) -> None:
        now = time.time()
        stamp = f"{time.strftime('%Y-%m-%dT%H-%M-%S', time.gmtime(now))}.{int(now * 1000) % 1000:03}"
        os.replace(self._path, self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}"))
        os.close(self._fd)
        self._fd = self._open()
        self._size = 0
        aside = sorted(self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}"))
        for old in aside[: -self._backups] if self._backups else []:
            with contextlib.suppress(FileNotFoundError):
                old.unlink()

    def close(self) -> None:
        self.flush()
        os.close(self._fd)
