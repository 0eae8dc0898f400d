"""Searching Docker Hub, or what stands for it here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from atoll.errors import InvalidInput, NotSupported, Unavailable
from atoll.http import Request, Response, Server, json_response
from atoll.images.search import search

ROWS = [
    {"name": "busybox", "description": "Small", "star_count": 3000, "is_official": True, "is_automated": True},
    {"name": "ann/busybox", "description": None, "star_count": 3, "is_official": False},
]


def asked(answer: Callable[[Request], Response], *words: Any) -> list[dict[str, Any]]:
    async def main() -> list[dict[str, Any]]:
        async def handle(request: Request) -> Response:
            return answer(request)

        server = Server(handle)
        port = await server.start_tcp("127.0.0.1", 0)
        try:
            return await search(*words, hub=f"http://127.0.0.1:{port}")
        finally:
            await server.close()

    return asyncio.run(main())


def found(request: Request) -> Response:
    assert (request.path, request.query.get("q"), request.query.get("n")) == ("/v1/search", "busybox", "25")
    return json_response({"num_results": 2, "results": ROWS})


@pytest.mark.parametrize(
    ("term", "filters", "names"),
    [
        ("busybox", {}, ["busybox", "ann/busybox"]),
        ("docker.io/busybox", {"is-official": ["true"]}, ["busybox"]),
        ("busybox", {"is-official": ["0"]}, ["ann/busybox"]),
        ("busybox", {"stars": ["10"]}, ["busybox"]),
        ("busybox", {"is-automated": ["true"]}, []),
    ],
)
def test_search(term: str, filters: dict[str, list[str]], names: list[str]):
    rows = asked(found, term, 25, filters)
    assert [row["name"] for row in rows] == names
    assert all(row["is_automated"] is False and isinstance(row["description"], str) for row in rows)


def test_other_registries_have_no_search():
    with pytest.raises(NotSupported, match=r"registry\.lan:5000 cannot be searched: only Docker Hub has a search"):
        asked(found, "registry.lan:5000/busybox", 25, {})


@pytest.mark.parametrize(
    ("limit", "filters"), [(0, {}), (101, {}), (9, {"what": ["1"]}), (9, {"stars": ["many"]}), (9, {"is-official": ["x"]})]
)
def test_bad_words(limit: int, filters: dict[str, list[str]]):
    with pytest.raises(InvalidInput):
        asked(found, "busybox", limit, filters)


@pytest.mark.parametrize(
    "answer",
    [Response(503), Response(200, (), b"<html>"), json_response([]), json_response({"results": 5}), json_response({"results": [""]})],
)
def test_answers_that_are_none(answer: Response):
    with pytest.raises(Unavailable, match="Docker Hub's search"):
        asked(lambda _: answer, "busybox", 25, {})


def test_docker_hub_out_of_reach():
    with pytest.raises(Unavailable, match="cannot connect"):
        asyncio.run(search("busybox", 25, {}, hub="http://127.0.0.1:1"))
