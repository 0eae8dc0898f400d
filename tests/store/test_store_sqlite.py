"""What is SQLite's own: one owner, damage noticed, a commit that fails. What every store promises: test_store_contract."""

from __future__ import annotations

import asyncio
import os

import pytest

from atoll.errors import InUse, Unavailable
from atoll.store import SqliteStore


def test_a_second_owner_is_told_who_has_it(tmp_path):
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "s.db")
        with pytest.raises(InUse, match=f"process {os.getpid()}"):
            await SqliteStore.open(tmp_path / "s.db")
        await store.close()

    asyncio.run(scenario())


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "s.db").write_bytes(b"not a database, by far" * 100)

    async def scenario() -> None:
        with pytest.raises(Unavailable, match="damaged"):
            await SqliteStore.open(tmp_path / "s.db")

    asyncio.run(scenario())


def test_a_failed_commit_refuses_all_that_was_built_on_it(tmp_path):
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "s.db")
        kept = await store.write("/a", b"1", expected=0)
        store._committer._connection.execute("PRAGMA query_only = ON")
        results = await asyncio.gather(
            store.write("/a", b"2", expected=kept), *(store.write(f"/{i}", b"x", expected=0) for i in range(50)), return_exceptions=True
        )
        assert all(isinstance(r, Unavailable) for r in results)
        store._committer._connection.execute("PRAGMA query_only = OFF")
        assert await store.write("/a", b"3", expected=kept) == kept + 1
        assert [r.value for r in await store.scan("/")] == [b"3"]
        await store.close()

    asyncio.run(scenario())
