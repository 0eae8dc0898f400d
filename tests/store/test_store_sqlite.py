"""The store's contract: compare-and-swap, one rising revision, announcements in order, history, compaction, one owner, kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import InUse, Unavailable
from atoll.store import Change, Compacted, CompareFailed, SqliteStore


def test_write_needs_the_revision_it_saw(tmp_path):
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "s.db")
        first = await store.write("/a", b"1", expected=0)
        with pytest.raises(CompareFailed) as refused:
            await store.write("/a", b"2", expected=0)
        assert refused.value.actual == first
        second = await store.write("/a", b"2", expected=first)
        assert second > first
        third = await store.write("/a", None, expected=second)
        assert await store.scan("/") == []
        with pytest.raises(CompareFailed):
            await store.write("/a", None, expected=third)
        with pytest.raises(CompareFailed):
            await store.write("/never", None, expected=0)
        await store.close()

    asyncio.run(scenario())


def test_announcements_come_in_order_before_the_answer(tmp_path):
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "s.db")
        seen: list[Change] = []
        store.subscribe(seen.extend)

        async def put(i: int) -> None:
            revision = await store.write(f"/k/{i}", b"v", expected=0, payload=i)
            assert any(c.revision == revision and c.payload == i for c in seen)

        await asyncio.gather(*(put(i) for i in range(2_000)))
        assert [c.revision for c in seen] == list(range(1, 2_001))
        assert store.revision == 2_000
        await store.close()

    asyncio.run(scenario())


def test_lists_and_history_at_old_revisions_until_compacted(tmp_path):
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "s.db")
        one = await store.write("/p/a", b"1", expected=0)
        two = await store.write("/p/a", b"2", expected=one)
        await store.write("/q/x", b"-", expected=0)
        gone = await store.write("/p/a", None, expected=two)
        again = await store.write("/p/a", b"3", expected=0)
        assert [r.value for r in await store.scan("/p/", revision=one)] == [b"1"]
        assert await store.scan("/p/", revision=gone) == []
        events, complete = await store.history("/p/", one)
        assert [(e.revision, e.value, e.before) for e in events] == [(two, b"2", b"1"), (gone, None, b"2"), (again, b"3", None)]
        assert complete == again
        await store.compact(two)
        events, _ = await store.history("/p/", two)
        assert [(e.revision, e.before) for e in events] == [(gone, b"2"), (again, None)]
        for call in (store.history("/p/", one), store.scan("/p/", revision=one)):
            with pytest.raises(Compacted):
                await call
        await store.compact(again)
        assert [r.revision for r in await store.scan("/p/")] == [again]
        await store.close()

    asyncio.run(scenario())


def test_revisions_go_on_after_a_restart_even_when_the_last_was_a_compacted_delete(tmp_path):
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "s.db")
        one = await store.write("/a", b"1", expected=0)
        two = await store.write("/a", None, expected=one)
        await store.compact(two)
        await store.close()
        store = await SqliteStore.open(tmp_path / "s.db")
        assert store.revision == two
        assert await store.write("/a", b"1", expected=0) == two + 1
        await store.close()

    asyncio.run(scenario())


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


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.binary(max_size=4)), st.booleans()), max_size=30), st.data())
def test_every_revision_can_be_listed_as_it_was(tmp_path_factory, steps, data):
    """Model: a dict copied at each revision."""
    path = tmp_path_factory.mktemp("model") / "s.db"

    async def scenario() -> None:
        store = await SqliteStore.open(path)
        model: dict[str, tuple[bytes, int]] = {}
        past: dict[int, dict[str, tuple[bytes, int]]] = {0: {}}
        for key, value, restart in steps:
            expected = model[key][1] if key in model else 0
            if value is None and not expected:
                continue
            revision = await store.write(key, value, expected=expected)
            model = {k: v for k, v in model.items() if k != key}
            if value is not None:
                model[key] = (value, revision)
            past[revision] = model
            if restart:
                await store.close()
                store = await SqliteStore.open(path)
        horizon = data.draw(st.sampled_from(sorted(past)))
        await store.compact(horizon)
        for revision, state in past.items():
            if revision < horizon:
                with pytest.raises(Compacted):
                    await store.scan("", revision=revision)
                continue
            assert {r.key: (r.value, r.revision) for r in await store.scan("", revision=revision)} == state
        await store.close()

    asyncio.run(scenario())


_VICTIM = """
import asyncio, sys
from pathlib import Path
from atoll.store import SqliteStore
async def main():
    store = await SqliteStore.open(Path(sys.argv[1]), compact_interval=0.05)
    async def writer(n):
        revision = next((r.revision for r in await store.scan(f"/{n}")), 0)
        while True:
            revision = await store.write(f"/{n}", b"%d" % revision, expected=revision)
            print(n, revision, flush=True)
    await asyncio.gather(*(writer(n) for n in range(8)))
asyncio.run(main())
"""


def test_acknowledged_writes_survive_kill_9(tmp_path: Path):
    last = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", _VICTIM, str(tmp_path / "s.db")], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            lines.append(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.stdout.close()
        process.wait()
        lines += rest.splitlines(keepends=True)
        acknowledged = {n: int(r) for n, r in (line.split() for line in lines if line.endswith("\n"))}

        async def check(acknowledged: dict[str, int] = acknowledged, floor: int = last) -> int:
            store = await SqliteStore.open(tmp_path / "s.db")
            stored = {r.key[1:]: r for r in await store.scan("/")}
            for n, revision in acknowledged.items():
                assert stored[n].revision >= revision > floor
            assert store.revision >= max(acknowledged.values())
            await store.close()
            return store.revision

        last = asyncio.run(check())
