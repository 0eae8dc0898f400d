"""kill -9 at every sort of moment: what was acknowledged is there, and nothing is half there.

strace kills the victim at its n-th call of one system call: between the pages of a commit, before and after its fsync, while the log is
copied back into the file, while history is compacted, while the file is being made.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import sys

import pytest

from atoll.store import SqliteStore
from atoll.store.schema import connect

STRACE = shutil.which("strace")
VICTIM = """
import asyncio, sys
from pathlib import Path
from atoll.store import SqliteStore
async def main():
    store = await SqliteStore.open(Path(sys.argv[1]), compact_interval=float(sys.argv[2]) or None)
    held = {record.key: record.revision for record in await store.scan("/")}
    async def writer(n):
        key, revision = f"/{n}", held.get(f"/{n}", 0)
        for step in range(200):
            value = None if revision and step % 7 == 6 else b"%d" % revision + b"x" * 3000
            before, revision = revision, await store.write(key, value, expected=revision)
            print(n, revision, int(value is not None), flush=True)
            revision = revision if value else 0
    await asyncio.gather(*(writer(n) for n in range(8)))
    await store.close()
asyncio.run(main())
"""
MOMENTS = [
    *(("pwrite64", when, "0") for when in (2, 9, 200, 800)),
    *(("fdatasync", when, "0") for when in (1, 3, 30)),
    *(("pwrite64", when, "0.01") for when in (60, 1_100)),
    *(("fdatasync", when, "0.01") for when in (15,)),
]


def crash(path, *strace, interval):
    """Run the victim to its death; the last thing it was told of each key: (revision, whether there is a value)."""
    process = subprocess.run(
        [*strace, sys.executable, "-c", VICTIM, str(path), interval], capture_output=True, text=True, timeout=60, check=False
    )
    lines = process.stdout.splitlines(keepends=True)
    told = {f"/{n}": (int(r), present == "1") for n, r, present in (line.split() for line in lines if line.endswith("\n"))}
    return process, told


def check(path, told):
    """The store opens, holds at least what was told, and every version of a key names the one it replaced."""

    async def scenario():
        store = await SqliteStore.open(path)
        held = {record.key: record for record in await store.scan("/")}
        for key, (revision, present) in told.items():
            assert store.revision >= revision
            if present:
                later = held.get(key)
                assert later is None or later.revision >= revision
            if key not in held and present:  # then a deletion that was not acknowledged any more
                assert store.revision > revision
        await store.close()

    asyncio.run(scenario())
    with connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        horizon = connection.execute("SELECT value FROM settings WHERE name = 'compacted'").fetchone()[0]
        rows = connection.execute("SELECT revision, key, previous, value FROM entries ORDER BY revision").fetchall()
    connection.close()
    newest: dict[str, int] = {}
    for revision, key, previous, value in rows:
        if revision > horizon and (key in newest or previous > horizon):
            assert previous == newest.get(key, 0)
        assert value is None or value == b"%d" % previous + b"x" * 3000
        newest[key] = revision if value is not None else 0
    for key, (revision, present) in told.items():
        if present and newest.get(key, 0) < revision:
            assert any(row[1] == key and row[0] > revision for row in rows)


@pytest.mark.skipif(STRACE is None, reason="needs Debian's strace")
@pytest.mark.parametrize(("call", "when", "interval"), MOMENTS)
def test_killed_at_a_system_call(tmp_path, call, when, interval):
    path = tmp_path / "s.db"
    inject = f"inject={call}:signal=SIGKILL:when={when}"
    for _ in range(2):  # what the first left behind is where the second begins
        process, told = crash(path, STRACE, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, interval=interval)
        assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), process.stderr
        if path.exists():
            check(path, told)


def test_killed_at_any_time(tmp_path):
    path = tmp_path / "s.db"
    for _ in range(3):
        killer = ["timeout", "-s", "KILL", f"{random.uniform(0.3, 0.8):.3f}"]
        _, told = crash(path, *killer, interval="0.02")
        if path.exists():
            check(path, told)
