"""Snapshots of a store in use, and their way back."""

from __future__ import annotations

import asyncio

import pytest

from atoll.errors import Conflict, InUse, NotFound, Unavailable
from atoll.store import Compacted, SqliteStore
from atoll.store.backup import restore, snapshot


def test_a_snapshot_under_writes_holds_one_moment(tmp_path):
    async def scenario():
        path = tmp_path / "s.db"
        store = await SqliteStore.open(path)
        revision, stop = 0, False

        async def pairs():
            """Both keys always change in one commit: no snapshot may tell them apart."""
            nonlocal revision
            at = (0, 0)
            while not stop:
                value = b"%d" % revision
                at = tuple(await asyncio.gather(*(store.write(key, value, expected=seen) for key, seen in zip("ab", at, strict=True))))
                revision = at[1]

        writer = asyncio.create_task(pairs())
        for number in range(5):
            before = revision
            await asyncio.to_thread(snapshot, path, tmp_path / f"{number}.snap")
            copy = await SqliteStore.open(tmp_path / f"{number}.snap")
            held = {record.key: record for record in await copy.scan("")}
            assert copy.revision >= before
            if held:
                assert held["a"].value == held["b"].value
            await copy.close()
        stop = True
        await writer
        await store.close()

    asyncio.run(scenario())
    assert not list(tmp_path.glob(".*"))


def test_restored_stores_go_on_above_all_revisions(tmp_path):
    async def scenario():
        path = tmp_path / "s.db"
        store = await SqliteStore.open(path)
        first = await store.write("/a", b"1", expected=0)
        snapshot(path, tmp_path / "snap")
        with pytest.raises(InUse):
            restore(tmp_path / "snap", path)
        last = await store.write("/a", b"2", expected=first)
        await store.close()
        restore(tmp_path / "snap", path)
        store = await SqliteStore.open(path)
        assert [(record.value, record.revision) for record in await store.scan("/")] == [(b"1", first)]
        assert store.revision > last
        with pytest.raises(Compacted):
            await store.history("/", last)
        assert await store.write("/a", b"3", expected=first) > last + 1
        await store.close()
        path.write_bytes(b"damaged" * 1_000)
        restore(tmp_path / "snap", path)
        store = await SqliteStore.open(path)
        assert store.revision > last
        await store.close()

    asyncio.run(scenario())
    assert {entry.name for entry in tmp_path.iterdir()} <= {"s.db", "s.db.lock", "s.db-wal", "s.db-shm", "snap"}


def test_what_cannot_be_copied(tmp_path):
    with pytest.raises(NotFound):
        snapshot(tmp_path / "none", tmp_path / "x")
    with pytest.raises(NotFound):
        restore(tmp_path / "none", tmp_path / "x")
    (tmp_path / "bad").write_bytes(b"no store" * 1_000)
    with pytest.raises(Unavailable):
        restore(tmp_path / "bad", tmp_path / "s.db")
    with pytest.raises(Unavailable):
        snapshot(tmp_path / "bad", tmp_path / "x")
    with pytest.raises(Conflict):
        snapshot(tmp_path / "bad", tmp_path / "bad")
    assert {entry.name for entry in tmp_path.iterdir()} <= {"bad", "s.db.lock"}
