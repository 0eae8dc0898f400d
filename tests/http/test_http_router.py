"""Routes, headers, queries and requests made in process: no sockets."""

from __future__ import annotations

import asyncio

import pytest

from atoll.http import Headers, MethodNotAllowed, Query, Request, Response, RouteNotFound, Router
from atoll.http.response import encode_headers


@pytest.fixture
def router():
    table = Router()
    for method, pattern in [
        ("GET", "/_ping"),
        ("GET", "/containers/json"),
        ("GET", "/containers/{id}/json"),
        ("POST", "/containers/{id}/start"),
        ("DELETE", "/containers/{id}"),
        ("GET", "/images/json"),
        ("GET", "/images/{name:path}/json"),
        ("DELETE", "/images/{name:path}"),
        ("GET", "/v2/{name:path}/blobs/{digest}"),
        ("POST", "/v2/{name:path}/blobs/uploads/"),
        ("PUT", "/v2/{name:path}/blobs/uploads/{uuid}"),
        ("HEAD", "/v2/{name:path}/manifests/{reference}"),
        ("GET", "/v2/{name:path}/manifests/{reference}"),
    ]:
        table.add(method, pattern, f"{method} {pattern}")
    return table


@pytest.mark.parametrize(
    ("method", "target", "route", "params"),
    [
        ("GET", "/_ping", "GET /_ping", {}),
        ("HEAD", "/_ping", "GET /_ping", {}),
        ("GET", "/containers/json", "GET /containers/json", {}),
        ("GET", "/containers/json/json?all=1", "GET /containers/{id}/json", {"id": "json"}),
        ("GET", "/containers/a%2Fb%20c/json", "GET /containers/{id}/json", {"id": "a/b c"}),
        ("GET", "/images/json", "GET /images/json", {}),
        ("GET", "/images/docker.io/library/web:1/json", "GET /images/{name:path}/json", {"name": "docker.io/library/web:1"}),
        ("DELETE", "/images/a/b", "DELETE /images/{name:path}", {"name": "a/b"}),
        ("POST", "/v2/a/b/blobs/uploads/", "POST /v2/{name:path}/blobs/uploads/", {"name": "a/b"}),
        ("PUT", "/v2/blobs/blobs/uploads/7", "PUT /v2/{name:path}/blobs/uploads/{uuid}", {"name": "blobs", "uuid": "7"}),
        ("GET", "/v2/a/blobs/sha256:0", "GET /v2/{name:path}/blobs/{digest}", {"name": "a", "digest": "sha256:0"}),
        ("HEAD", "/v2/a/manifests/1", "HEAD /v2/{name:path}/manifests/{reference}", {"name": "a", "reference": "1"}),
    ],
)
def test_the_most_literal_pattern_wins(router, method, target, route, params):
    assert router.dispatch(Request(method, target)) == (route, params)


@pytest.mark.parametrize("target", ["/", "", "/containers", "/containers//json", "/containers/a/json/", "/v2//blobs/x"])
def test_other_paths_are_not_found(router, target):
    with pytest.raises(RouteNotFound):
        router.dispatch(Request("GET", target))


def test_other_methods_are_named(router):
    with pytest.raises(MethodNotAllowed) as caught:
        router.dispatch(Request("PATCH", "/containers/a"))
    assert caught.value.allowed == ("DELETE",)


def test_patterns_are_checked():
    table = Router()
    table.add("GET", "/a/{x}", None)
    for pattern in ("/a/{x}", "a", "/{x:path}/{y:path}", "/{x:int}"):
        with pytest.raises(ValueError):
            table.add("GET", pattern, None)
    assert table.routes() == [("GET", "/a/{x}")]


def test_a_router_is_a_handler():
    async def handler(request, name):
        return Response(200, (), name.encode() + await request.body())

    table = Router()
    table.add("GET", "/hello/{name}", handler)
    assert asyncio.run(table(Request("GET", "/hello/you"))).body == b"you"


def test_headers_are_found_by_any_case_and_keep_their_order():
    headers = Headers([(b"Accept", b"a, b"), (b"X-One", b"1"), (b"accept", b"c")])
    assert headers.get("ACCEPT") == "a, b"
    assert headers.getall("accept") == ["a, b", "c"]
    assert headers.tokens("Accept") == ["a", "b", "c"]
    assert "x-one" in headers
    assert headers.get("none", "x") == "x"
    assert list(headers.items()) == [("Accept", "a, b"), ("X-One", "1"), ("accept", "c")]
    assert len(Headers([("A", "1")])) == 1


def test_queries_are_decoded():
    query = Query("filters=%7B%22a%22%3A1%7D&all=1&q=a+b&t=x&t=y&bare&&no=false&bad=%zz%ff")
    assert query.get("filters") == '{"a":1}'
    assert query.flag("all")
    assert not query.flag("no")
    assert not query.flag("absent")
    assert query.flag("absent", default=True)
    assert query.get("q") == "a b"
    assert query.getall("t") == ["x", "y"]
    assert query.get("bare") == ""
    assert query.get("bad") == "%zz\ufffd"


@pytest.mark.parametrize("pair", [("X", "a\r\nb"), ("X", "a\nb"), ("X\r\n", "a"), ("X", "a\rb"), ("X", "a\0b")])
def test_fields_cannot_start_another(pair):
    with pytest.raises(ValueError):
        encode_headers((("A", "1"), pair))
