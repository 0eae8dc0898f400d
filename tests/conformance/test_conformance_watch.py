"""[sig-api-machinery] Watchers: what a watch tells, from where, in which order."""

import threading

import pytest

from atoll.client.resources import CONFIG_MAPS

WHO = "watch-this-configmap"


def selected(*values):
    return f"{WHO} in ({','.join(values)})"


@pytest.fixture
def maps(api, ns):
    return api.at(CONFIG_MAPS, ns)


@pytest.mark.conformance(
    "[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps [Conformance]"
)
def test_additions_changes_and_deletions_are_told(maps):
    with (
        maps.watch(labelSelector=selected("a")) as a,
        maps.watch(labelSelector=selected("b")) as b,
        maps.watch(labelSelector=selected("a", "b")) as both,
    ):
        first = maps.new("first", labels={WHO: "a"})
        for watch in (a, both):
            assert watch.next() == ("ADDED", first)
        for number in ("1", "2"):
            changed = maps.patch("first", {"data": {"mutation": number}})
            for watch in (a, both):
                assert watch.next() == ("MODIFIED", changed)
        maps.delete("first")
        for watch in (a, both):
            kind, gone = watch.next()
            assert (kind, gone["data"], gone["metadata"]["uid"]) == ("DELETED", {"mutation": "2"}, first["metadata"]["uid"])
        second = maps.new("second", labels={WHO: "b"})
        maps.delete("second")
        for watch in (b, both):
            assert watch.next() == ("ADDED", second)
            assert watch.next()[0] == "DELETED"
        assert a.silent(0.1)


@pytest.mark.conformance("[sig-api-machinery] Watchers should be able to start watching from a specific resource version [Conformance]")
def test_a_watch_begins_after_the_version_it_names(maps):
    maps.new("m")
    first = maps.patch("m", {"data": {"mutation": "1"}})
    second = maps.patch("m", {"data": {"mutation": "2"}})
    maps.delete("m")
    with maps.watch(fieldSelector="metadata.name=m", resourceVersion=first["metadata"]["resourceVersion"]) as watch:
        assert watch.next() == ("MODIFIED", second)
        assert watch.next()[0] == "DELETED"


@pytest.mark.conformance(
    "[sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the previous "
    "watch [Conformance]"
)
def test_a_watch_goes_on_where_another_ended(maps):
    with maps.watch(labelSelector=selected("again")) as watch:
        maps.new("m", labels={WHO: "again"})
        maps.patch("m", {"data": {"mutation": "1"}})
        assert watch.next()[0] == "ADDED"
        kind, last = watch.next()
        assert kind == "MODIFIED"
    second = maps.patch("m", {"data": {"mutation": "2"}})
    maps.delete("m")
    with maps.watch(labelSelector=selected("again"), resourceVersion=last["metadata"]["resourceVersion"]) as watch:
        assert watch.next() == ("MODIFIED", second)
        assert watch.next()[0] == "DELETED"


@pytest.mark.conformance(
    "[sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the selector [Conformance]"
)
def test_what_leaves_the_selector_is_told_as_deleted(maps):
    with maps.watch(labelSelector=selected("here")) as watch:
        maps.new("m", labels={WHO: "here"})
        maps.patch("m", {"data": {"mutation": "1"}})
        assert [watch.next()[0] for _ in range(2)] == ["ADDED", "MODIFIED"]
        maps.patch("m", {"metadata": {"labels": {WHO: "elsewhere"}}})
        assert watch.next()[0] == "DELETED"
        maps.patch("m", {"data": {"mutation": "2"}})
        assert watch.silent(0.1)
        back = maps.patch("m", {"metadata": {"labels": {WHO: "here"}}})
    with maps.watch(labelSelector=selected("here"), resourceVersion="0") as watch:
        assert watch.next() == ("ADDED", back)
        third = maps.patch("m", {"data": {"mutation": "3"}})
        assert watch.next() == ("MODIFIED", third)
        maps.delete("m")
        assert watch.next()[0] == "DELETED"


@pytest.mark.conformance("[sig-api-machinery] Watchers should receive events on concurrent watches in same order [Conformance]")
def test_all_watches_tell_the_same_order(maps):
    start = maps.list()["metadata"]["resourceVersion"]

    def produce():
        for number in range(30):
            maps.new(f"m{number % 5}")
            maps.patch(f"m{number % 5}", {"data": {"round": str(number)}})
            maps.delete(f"m{number % 5}")

    writer = threading.Thread(target=produce)
    writer.start()
    try:
        with maps.watch(resourceVersion=start) as first:
            seen = [obj["metadata"]["resourceVersion"] for _, (_, obj) in zip(range(90), first, strict=False)]
        for version in (start, *seen[:60:6]):
            expected = seen[seen.index(version) + 1 :] if version in seen else seen
            with maps.watch(resourceVersion=version) as watch:
                assert [obj["metadata"]["resourceVersion"] for _, (_, obj) in zip(expected, watch, strict=False)] == expected
    finally:
        writer.join()
