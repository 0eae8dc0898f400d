import asyncio

import orjson
import pytest

from atoll.client.http import HttpClient
from atoll.client.informer import Informer
from atoll.client.resources import CONFIG_MAPS, NODES, PODS
from atoll.errors import StatusError, Unavailable
from atoll.http import Response, Server, json_response


async def serve(tmp_path, handler):
    server = Server(handler)
    path = tmp_path / "api.sock"
    await server.start_unix(str(path))
    return server, f"unix://{path}"


def with_server(tmp_path, handler, scenario):
    async def main():
        server, address = await serve(tmp_path, handler)
        client = HttpClient(address, token=lambda: "secret")
        try:
            await scenario(client)
        finally:
            await client.close()
            await server.close()

    asyncio.run(main())


def echo(seen):
    async def handler(request):
        body = await request.body()
        query = {
            name: request.query.get(name)
            for name in ("labelSelector", "limit", "force", "fieldManager", "continue")
            if request.query.get(name)
        }
        seen.append((request.method, request.path, query, request.headers.get("content-type"), orjson.loads(body) if body else None))
        assert request.headers.get("authorization") == "Bearer secret"
        return json_response({"metadata": {"name": "x"}})

    return handler


def test_every_verb_as_the_server_sees_it(tmp_path):
    seen = []

    async def scenario(client):
        pod = {"metadata": {"name": "web", "namespace": "shop"}}
        await client.get(NODES, "n1")
        await client.list(PODS, "shop", label_selector="a=b,c!=d", limit=5, continue_="x y")
        await client.create(PODS, pod)
        await client.create(PODS, {"target": {}}, "shop", name="web", subresource="binding")
        await client.update(PODS, pod, subresource="status")
        await client.patch(PODS, "web", {"a": 1}, "shop", kind="apply", field_manager="me", force=True)
        await client.patch(PODS, "web", [], "shop", kind="json")
        await client.delete(PODS, "web", "shop", propagation="Foreground", grace_seconds=0, uid="u", resource_version="7")
        await client.delete_collection(PODS, "shop", label_selector="a=b")

    with_server(tmp_path, echo(seen), scenario)
    pods = "/api/v1/namespaces/shop/pods"
    assert seen == [
        ("GET", "/api/v1/nodes/n1", {}, None, None),
        ("GET", pods, {"labelSelector": "a=b,c!=d", "limit": "5", "continue": "x y"}, None, None),
        ("POST", pods, {}, "application/json", {"metadata": {"name": "web", "namespace": "shop"}}),
        ("POST", f"{pods}/web/binding", {}, "application/json", {"target": {}}),
        ("PUT", f"{pods}/web/status", {}, "application/json", {"metadata": {"name": "web", "namespace": "shop"}}),
        ("PATCH", f"{pods}/web", {"force": "true", "fieldManager": "me"}, "application/apply-patch+yaml", {"a": 1}),
        ("PATCH", f"{pods}/web", {}, "application/json-patch+json", []),
        (
            "DELETE",
            f"{pods}/web",
            {},
            "application/json",
            {
                "kind": "DeleteOptions",
                "apiVersion": "v1",
                "propagationPolicy": "Foreground",
                "gracePeriodSeconds": 0,
                "preconditions": {"uid": "u", "resourceVersion": "7"},
            },
        ),
        ("DELETE", pods, {"labelSelector": "a=b"}, None, None),
    ]


def test_errors_are_status_errors(tmp_path):
    async def handler(request):
        if request.path.endswith("plain"):
            return Response(503, body=b"upstream is away")
        if request.path.endswith("html"):
            return Response(200, body=b"<html>")
        return json_response(StatusError(409, "Conflict", "changed", {"name": "x"}).status(), 409)

    async def scenario(client):
        with pytest.raises(StatusError, match="changed") as caught:
            await client.get(NODES, "n1")
        assert (caught.value.code, caught.value.reason, caught.value.details) == (409, "Conflict", {"name": "x"})
        with pytest.raises(StatusError, match="upstream is away") as caught:
            await client.get(NODES, "plain")
        assert caught.value.reason == "ServiceUnavailable"
        with pytest.raises(Unavailable, match="something else than JSON"):
            await client.get(NODES, "html")

    with_server(tmp_path, handler, scenario)


def test_nobody_there(tmp_path):
    async def scenario():
        async with HttpClient(f"unix://{tmp_path}/none.sock") as client:
            with pytest.raises(Unavailable):
                await client.get(NODES, "n1")

    asyncio.run(scenario())


def line(kind, name, version):
    return orjson.dumps({"type": kind, "object": {"metadata": {"name": name, "namespace": "d", "resourceVersion": version}}}) + b"\n"


def test_watch_reassembles_lines_and_feeds_an_informer(tmp_path):
    async def body():
        data = line("ADDED", "a", "2") + line("MODIFIED", "a", "3") + line("ADDED", "é", "4") + line("BOOKMARK", "", "5")
        for start in range(0, len(data), 7):
            yield data[start : start + 7]
        await asyncio.sleep(30)

    async def handler(request):
        if request.query.get("watch"):
            assert request.query.get("allowWatchBookmarks") == "true"
            assert request.query.get("resourceVersion") == "1"
            return Response(200, body=body())
        return json_response({"metadata": {"resourceVersion": "1"}, "items": []})

    async def scenario(client):
        informer = Informer(client, CONFIG_MAPS)
        arrived = asyncio.Event()
        informer.add_handler(lambda old, new: arrived.set() if new["metadata"]["name"] == "é" else None)
        task = asyncio.create_task(informer.run())
        async with asyncio.timeout(5):
            await arrived.wait()
        assert informer.get("d/a")["metadata"]["resourceVersion"] == "3"
        informer.stop()
        await task

    with_server(tmp_path, handler, scenario)


def test_watch_errors(tmp_path):
    async def body():
        yield line("ADDED", "a", "2")
        yield orjson.dumps({"type": "ERROR", "object": StatusError(410, "Expired", "too old").status()}) + b"\n"

    async def handler(request):
        if request.path.endswith("nodes"):
            return json_response(StatusError(403, "Forbidden", "no").status(), 403)
        return Response(200, body=body())

    async def scenario(client):
        seen = []

        async def follow(resource):
            async for kind, _ in client.watch(resource, resource_version="1"):
                seen.append(kind)

        with pytest.raises(StatusError) as caught:
            await follow(PODS)
        assert (caught.value.code, seen) == (410, ["ADDED"])
        with pytest.raises(StatusError) as caught:
            await follow(NODES)
        assert caught.value.code == 403

    with_server(tmp_path, handler, scenario)
