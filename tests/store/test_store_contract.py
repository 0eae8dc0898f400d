"""What every store promises: compare-and-swap, one rising revision, announcements in order, history, compaction."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.errors import Unavailable
from atoll.store import Change, Compacted, CompareFailed


def run(place, scenario):
    """Run `scenario(store, prefix)` on a store that is closed afterwards."""

    async def whole():
        store = await place.open()
        try:
            await scenario(store, place.prefix)
        finally:
            await store.close()

    asyncio.run(whole())


def test_a_write_needs_the_revision_it_saw(place):
    async def scenario(store, prefix):
        first = await store.write(prefix + "a", b"1", expected=0)
        with pytest.raises(CompareFailed) as refused:
            await store.write(prefix + "a", b"2", expected=0)
        assert refused.value.actual == first
        second = await store.write(prefix + "a", b"2", expected=first)
        assert second > first
        third = await store.write(prefix + "a", None, expected=second)
        assert await store.scan(prefix) == []
        for key, expected in (("a", third), ("never", 0), ("never", first)):
            with pytest.raises(CompareFailed) as refused:
                await store.write(prefix + key, None, expected=expected)
            assert refused.value.actual == 0

    run(place, scenario)


def test_of_many_who_saw_the_same_one_wins(place):
    async def scenario(store, prefix):
        first = await store.write(prefix + "a", b"0", expected=0)
        attempts = [store.write(prefix + "a", b"%d" % n, expected=first) for n in range(20)]
        results = await asyncio.gather(*attempts, return_exceptions=True)
        assert sum(isinstance(result, int) for result in results) == 1
        assert sum(isinstance(result, CompareFailed) for result in results) == 19

    run(place, scenario)


def test_announcements_come_in_order_before_the_answer(place):
    async def scenario(store, prefix):
        seen: list[Change] = []
        store.subscribe(seen.extend)
        begin = store.revision

        async def put(i):
            revision = await store.write(f"{prefix}{i}", b"%d" % i, expected=0, payload=i)
            assert any((c.revision, c.payload, c.previous) == (revision, i, 0) for c in seen)
            assert store.revision >= revision

        await asyncio.gather(*(put(i) for i in range(300)))
        assert [c.revision for c in seen] == list(range(begin + 1, begin + 301))
        gone = await store.write(prefix + "7", None, expected=next(c.revision for c in seen if c.key == prefix + "7"))
        assert (seen[-1].revision, seen[-1].value, seen[-1].previous > begin) == (gone, None, True)

    run(place, scenario)


def test_lists_and_history_at_old_revisions_until_compacted(place):
    async def scenario(store, prefix):
        p = prefix + "p/"
        one = await store.write(p + "a", b"1", expected=0)
        two = await store.write(p + "a", b"2", expected=one)
        await store.write(prefix + "q/x", b"-", expected=0)
        gone = await store.write(p + "a", None, expected=two)
        again = await store.write(p + "a", b"3", expected=0)
        assert [r.value for r in await store.scan(p, revision=one)] == [b"1"]
        assert await store.scan(p, revision=gone) == []
        events, complete = await store.history(p, one)
        told = [(e.revision, e.value, e.before, e.before_revision) for e in events]
        assert told == [(two, b"2", b"1", one), (gone, None, b"2", two), (again, b"3", None, 0)]
        assert complete == again
        assert await store.history(p, again) == ([], again)
        await store.compact(two)
        await store.compact(one)  # compacted already
        assert store.compacted == two
        events, _ = await store.history(p, two)
        assert [(e.revision, e.before) for e in events] == [(gone, b"2"), (again, None)]
        for call in (store.history(p, one), store.scan(p, revision=one)):
            with pytest.raises(Compacted):
                await call
        await store.compact(again)
        assert [r.revision for r in await store.scan(p)] == [again]

    run(place, scenario)


def test_revisions_go_on_after_a_restart_even_when_the_last_was_a_compacted_delete(place):
    async def scenario(store, prefix):
        one = await store.write(prefix + "a", b"1", expected=0)
        two = await store.write(prefix + "a", None, expected=one)
        await store.compact(two)
        await store.close()
        again = await place.open()
        assert again.revision == two
        assert await again.write(prefix + "a", b"1", expected=0) == two + 1
        await again.close()

    run(place, scenario)


def test_long_scans_come_whole_and_sorted(place):
    async def scenario(store, prefix):
        await asyncio.gather(*(store.write(f"{prefix}{i:05d}", b"x" * 10, expected=0) for i in range(1_100)))
        found = await store.scan(prefix)
        assert [record.key for record in found] == [f"{prefix}{i:05d}" for i in range(1_100)]

    run(place, scenario)


def test_a_closed_store_refuses(place):
    async def scenario(store, prefix):
        assert store.problem == ""
        await store.settle()
        await store.close()
        assert store.problem
        with pytest.raises(Unavailable):
            await store.write(prefix + "a", b"1", expected=0)

    run(place, scenario)


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.binary(max_size=4)), st.booleans()), max_size=30)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.integers(0, 30))
def test_every_revision_can_be_listed_as_it_was(place, steps, horizon):
    """Model: a dict copied at each revision."""

    async def scenario():
        prefix = type(place)(place.location).prefix
        store = await place.open()
        model: dict[str, tuple[bytes, int]] = {}
        past: dict[int, dict[str, tuple[bytes, int]]] = {store.revision: {}}
        for name, value, restart in steps:
            key = prefix + name
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
                store = await place.open()
        oldest = sorted(past)[horizon % len(past)]
        await store.compact(oldest)
        for revision, state in past.items():
            if revision < oldest:
                with pytest.raises(Compacted):
                    await store.scan(prefix, revision=revision)
                continue
            assert {r.key: (r.value, r.revision) for r in await store.scan(prefix, revision=revision)} == state
        await store.close()

    asyncio.run(scenario())


def test_the_loser_of_a_race_is_told_what_to_wait_for(place):
    async def scenario(store, prefix):
        revision = await store.write(prefix + "a", b"1", expected=0)
        results = await asyncio.gather(
            store.write(prefix + "a", None, expected=revision), store.write(prefix + "a", b"2", expected=revision), return_exceptions=True
        )
        lost = next(result for result in results if isinstance(result, CompareFailed))
        won = next(result for result in results if isinstance(result, int))
        assert lost.seen >= won
        assert lost.actual in (0, won)

    run(place, scenario)
