"""Lists and watches by resourceVersion, as the Kubernetes API documents them: freshness, pages, expiry, streaming lists."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from atoll.apiserver import ApiServer, ApiServerConfig, InProcessClient
from atoll.apiserver.config import StaticToken
from atoll.apiserver.machinery import caches as caches_module
from atoll.client.resources import CONFIG_MAPS
from atoll.http import Headers, Request

MAPS = "/api/v1/namespaces/default/configmaps"
HEADERS = [("Authorization", "Bearer admin"), ("Accept", "application/json")]


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch):
    """For revisions that do not come."""
    monkeypatch.setattr(caches_module, "AHEAD_WAIT_S", 0.1)


def run(tmp_path, scenario):
    """Run `scenario(client, get)`; `get(target)` answers the status and the body, for a watch its events."""

    async def whole():
        tokens = {"admin": StaticToken("admin", ("system:masters",))}
        server = ApiServer(ApiServerConfig(store=tmp_path / "store.db", tokens=tokens))
        await server.start()

        async def get(target):
            response = await server.handler(Request("GET", target, Headers(HEADERS)))
            if isinstance(response.body, bytes):
                return response.status, orjson.loads(response.body)
            async with asyncio.timeout(10):
                lines = b"".join([piece async for piece in response.body]).splitlines()
            return response.status, [orjson.loads(line) for line in lines]

        try:
            await scenario(InProcessClient(server), get)
        finally:
            await server.close()

    asyncio.run(whole())


async def fill(client, names):
    """The revision after each."""
    revisions = []
    for name in names:
        made = await client.create(CONFIG_MAPS, {"metadata": {"name": name}, "data": {"v": "1"}}, "default")
        revisions.append(int(made["metadata"]["resourceVersion"]))
    return revisions


def names(body):
    return [item["metadata"]["name"] for item in body["items"]]


def shown(event):
    """Its type, and the name, or a bookmark's mark of the end of the present objects."""
    metadata = event["object"]["metadata"]
    marked = (metadata.get("annotations") or {}).get("k8s.io/initial-events-end", "") if event["type"] == "BOOKMARK" else metadata["name"]
    return f"{event['type']} {marked}".strip()


def test_how_fresh_a_list_is(tmp_path):
    async def scenario(client, get):
        a, b, c = await fill(client, "abc")
        everything = ["a", "b", "c"]
        for query, held, at in [
            ("", everything, 0),
            ("?resourceVersion=0", everything, 0),
            (f"?resourceVersion={b}", everything, 0),
            (f"?resourceVersion={b}&resourceVersionMatch=NotOlderThan", everything, 0),
            ("?resourceVersion=0&resourceVersionMatch=NotOlderThan", everything, 0),
            (f"?resourceVersion={b}&resourceVersionMatch=Exact", ["a", "b"], b),
            (f"?resourceVersion={a}&resourceVersionMatch=Exact&limit=5", ["a"], a),
            (f"?resourceVersion={b}&limit=5", ["a", "b"], b),
            (f"?resourceVersion={b}&resourceVersionMatch=NotOlderThan&limit=5", everything, 0),
            (f"?resourceVersion={a}&resourceVersionMatch=Exact&fieldSelector=metadata.name%3Db", [], a),
            ("?fieldSelector=metadata.name%3Db", ["b"], 0),
        ]:
            status, body = await get(MAPS + query)
            assert (status, names(body)) == (200, held), query
            revision = int(body["metadata"]["resourceVersion"])
            assert revision == at or (not at and revision >= c), query
        status, body = await get(f"{MAPS}?resourceVersion={c + 1_000}&resourceVersionMatch=NotOlderThan")
        assert (status, body["reason"], body["details"]["retryAfterSeconds"]) == (504, "Timeout", 1)
        assert body["message"].startswith(f"Too large resource version: {c + 1_000}, current: ")

    run(tmp_path, scenario)


MATCH = "resourceVersionMatch"
LIST_REFUSALS = [
    (f"{MATCH}=Exact", "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"),
    (f"{MATCH}=Exact&resourceVersion=0", 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'),
    (f"{MATCH}=Some&resourceVersion=1", 'Unsupported value: "Some": supported values: "Exact", "NotOlderThan", ""'),
    (f"{MATCH}=Exact&resourceVersion=1&continue=x", "Forbidden: resourceVersionMatch is forbidden when continue is provided"),
    (f"watch=1&{MATCH}=NotOlderThan", "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"),
    ("watch=1&sendInitialEvents=true", "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
]


def test_options_that_contradict_each_other(tmp_path):
    async def scenario(client, get):
        for query, why in LIST_REFUSALS:
            status, body = await get(f"{MAPS}?{query}")
            assert (status, body["reason"]) == (422, "Invalid")
            assert body["message"] == f'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: {why}'
            assert body["details"]["causes"][0]["field"] == "resourceVersionMatch"

    run(tmp_path, scenario)


@pytest.mark.conformance(
    "[sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if the original version "
    "has been compacted away, though the list is inconsistent [Slow] [Conformance]"
)
def test_pages_count_what_remains_and_go_on_after_compaction(tmp_path):
    async def scenario(client, get):
        await fill(client, "abcdefg")
        _, first = await get(f"{MAPS}?limit=3")
        assert (names(first), first["metadata"]["remainingItemCount"]) == (["a", "b", "c"], 4)
        _, selected = await get(f"{MAPS}?limit=3&fieldSelector=metadata.name%21%3Dx")
        assert "remainingItemCount" not in selected["metadata"]
        await client.delete(CONFIG_MAPS, "e", "default")
        _, second = await get(f"{MAPS}?limit=3&continue={first['metadata']['continue']}")
        assert (names(second), second["metadata"]["remainingItemCount"]) == (["d", "e", "f"], 1)
        store = client._server.api.core.store
        await store.compact(store.revision)
        # The ring still has it: let it go too.
        cacher = client._server.api.core.caches.of(client._server.api.core.registry.get("", "v1", "configmaps"))
        cacher._ring.clear()
        cacher._floor = store.revision
        status, expired = await get(f"{MAPS}?limit=3&continue={first['metadata']['continue']}")
        assert (status, expired["reason"]) == (410, "Expired")
        assert expired["message"].startswith("The provided continue parameter is too old")
        status, rest = await get(f"{MAPS}?limit=2&continue={expired['metadata']['continue']}")
        assert (status, names(rest), rest["metadata"]["resourceVersion"]) == (200, ["d", "f"], str(store.revision))
        _, last = await get(f"{MAPS}?limit=2&continue={rest['metadata']['continue']}")
        assert names(last) == ["g"]
        assert "continue" not in last["metadata"]
        status, old = await get(f"{MAPS}?resourceVersion=1&resourceVersionMatch=Exact")
        assert (status, old["message"]) == (410, "The resourceVersion for the provided list is too old.")
        status, events = await get(f"{MAPS}?watch=1&resourceVersion=1&timeoutSeconds=1")
        assert (status, events[0]["type"], events[0]["object"]["code"], events[0]["object"]["reason"]) == (200, "ERROR", 410, "Expired")

    run(tmp_path, scenario)


def test_where_a_watch_begins(tmp_path):
    async def scenario(client, get):
        a, b = await fill(client, "ab")
        added = ["ADDED a", "ADDED b"]
        match = "resourceVersionMatch=NotOlderThan"
        expected = {
            "": added,
            "&resourceVersion=0": added,
            f"&resourceVersion={a}": ["ADDED b"],
            f"&sendInitialEvents=true&{match}&allowWatchBookmarks=true": [*added, "BOOKMARK true", "BOOKMARK"],
            f"&sendInitialEvents=true&{match}&resourceVersion={a}": added,
            f"&sendInitialEvents=false&{match}": [],
            f"&sendInitialEvents=false&{match}&resourceVersion=0": [],
            f"&sendInitialEvents=false&{match}&resourceVersion={a}": ["ADDED b"],
        }
        answers = await asyncio.gather(*(get(f"{MAPS}?watch=1&timeoutSeconds=1{query}") for query in expected))
        for (query, told), (status, events) in zip(expected.items(), answers, strict=True):
            assert status == 200
            assert [shown(event) for event in events] == told, query
            assert all(int(event["object"]["metadata"]["resourceVersion"]) >= b for event in events if event["type"] == "BOOKMARK")
        status, events = await get(f"{MAPS}?watch=1&timeoutSeconds=1&sendInitialEvents=true&{match}&resourceVersion={b + 1_000}")
        assert (status, events[0]["type"], events[0]["object"]["code"]) == (200, "ERROR", 504)

    run(tmp_path, scenario)


def test_the_old_paths_of_watches(tmp_path):
    async def scenario(client, get):
        await fill(client, "ab")
        expected = {
            "/api/v1/watch/namespaces/default/configmaps?": ["a", "b"],
            "/api/v1/watch/namespaces/default/configmaps/b?": ["b"],
            "/api/v1/watch/namespaces/default?": ["default"],
            "/api/v1/watch/configmaps?fieldSelector=metadata.namespace%3Ddefault&": ["a", "b"],
        }
        answers = await asyncio.gather(*(get(f"{path}timeoutSeconds=1") for path in expected))
        for (path, told), (status, events) in zip(expected.items(), answers, strict=True):
            assert (status, [event["object"]["metadata"]["name"] for event in events]) == (200, told), path
        assert (await get("/api/v1/watch"))[0] == 404

    run(tmp_path, scenario)
