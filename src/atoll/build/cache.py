"""The build cache: what each step made, by the digest of all it depended on.

A key covers the parent's key, the instruction, and the content it read, so that equal keys mean equal results, in any Dockerfile. An
entry holds its layers by a lease of the image store; an entry whose layers have gone is no hit. One SQLite file; a crash loses at most
the last entry.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll.images.collector import Leases
from atoll.images.snapshots import Snapshots

SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (
    key TEXT PRIMARY KEY, instruction TEXT NOT NULL, created TEXT NOT NULL, chain TEXT, used REAL NOT NULL, size INTEGER NOT NULL
) WITHOUT ROWID
"""
LEASE = "build-cache/"


@dataclass(frozen=True, slots=True)
class Entry:
    """`chain` is the layer on top after the step, None where there is none; `created` the time the step first ran."""

    key: str
    created: str
    chain: str | None


def key_of(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Cache:
    def __init__(self, path: Path, leases: Leases, snapshots: Snapshots) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._leases = leases
        self._snapshots = snapshots
        self._turns: dict[str, _Turn] = {}
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(SCHEMA)

    def close(self) -> None:
        self._database.close()

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """One at a time: who comes second finds what the first has made."""
        turn = self._turns.setdefault(key, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[key]

    def find(self, key: str) -> Entry | None:
        row = self._database.execute("SELECT created, chain FROM steps WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        created, chain = row
        if chain is not None and self._snapshots.find(chain) is None:
            return None
        self._database.execute("UPDATE steps SET used = ? WHERE key = ?", (time.time(), key))
        return Entry(key, created, chain)

    def add(self, key: str, instruction: str, created: str, chain: str | None, size: int = 0) -> Entry:
        if chain is not None:
            self._leases.acquire(LEASE + key, [chain])
        self._database.execute(
            "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?)", (key, instruction[:200], created, chain, time.time(), size)
        )
        return Entry(key, created, chain)

    def rows(self) -> list[dict[str, Any]]:
        """As GET /system/df shows the cache."""
        rows = self._database.execute("SELECT key, instruction, created, used, size FROM steps ORDER BY used").fetchall()
        return [
            {
                "ID": key[:25],
                "Type": "regular",
                "Description": instruction,
                "InUse": False,
                "Shared": False,
                "Size": size,
                "CreatedAt": created,
                "LastUsedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(used)),
                "UsageCount": 1,
            }
            for key, instruction, created, used, size in rows
        ]

    def prune(self, *, unused_since: float | None = None) -> tuple[list[str], int]:
        """Forget entries (those not used since, where given); their keys, and the bytes of their own layers."""
        condition, arguments = ("", ()) if unused_since is None else (" WHERE used < ?", (unused_since,))
        rows = self._database.execute(f"SELECT key, chain, size FROM steps{condition}", arguments).fetchall()  # noqa: S608  no input
        for key, chain, _ in rows:
            if chain is not None:
                self._leases.release(LEASE + key)
            self._database.execute("DELETE FROM steps WHERE key = ?", (key,))
        return [key for key, _, _ in rows], sum(size for _, _, size in rows)
