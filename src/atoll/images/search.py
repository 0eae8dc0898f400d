"""`docker search`: Docker Hub's own search, which no other registry speaks (the v1 API, index.docker.io/v1/search).

The Engine API, ImageSearch, has its fields; filters are applied here, as dockerd does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import orjson

from atoll.errors import InvalidInput, NotSupported, Unavailable
from atoll.http import BodyTooLarge, Client, Disconnected
from atoll.http.proxy import proxy_for

HUB = "https://index.docker.io"
LIMIT_DEFAULT, LIMIT_MAX = 25, 100
TIMEOUT_S = 20.0
ANSWER_MAX = 8 << 20  # bytes
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_FILTERS = ("is-official", "is-automated", "stars")


async def search(term: str, limit: int, filters: Mapping[str, Sequence[str]], hub: str = HUB) -> list[dict[str, Any]]:
    """Rows of name, description, star_count, is_official, is_automated. Raises InvalidInput, NotSupported, Unavailable."""
    stars, flags = _read(filters)
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidInput(f"limit {limit} is outside the range of [1, {LIMIT_MAX}]")
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        if first not in ("docker.io", "index.docker.io"):
            raise NotSupported(f"{first} cannot be searched: only Docker Hub has a search; list a registry's content by its /v2/_catalog")
        term = rest
    query = urlencode({"q": term.removeprefix("library/"), "n": limit})
    try:
        async with Client(hub, headers=[("User-Agent", "atoll")], timeout=TIMEOUT_S, proxy=proxy_for(hub)) as client:
            response = await client.request("GET", f"/v1/search?{query}")
            async with response:
                body = await response.read(ANSWER_MAX)
        if response.status != 200:
            raise Unavailable(f"Docker Hub's search answered {response.status}")
        rows = orjson.loads(body)["results"]
        return [_row(row) for row in rows if _fits(row, stars, flags)][:limit]
    except (Disconnected, BodyTooLarge, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(f"Docker Hub's search gave no proper answer: {error}") from error


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": str(row["name"]).removeprefix("library/"),
        "description": str(row.get("description") or ""),
        "star_count": int(row.get("star_count") or 0),
        "is_official": bool(row.get("is_official")),
        "is_automated": False,  # Docker Hub ended automated builds, and the API says so ever since (API 1.44)
    }


def _fits(row: Mapping[str, Any], stars: int, flags: Mapping[str, bool]) -> bool:
    if int(row.get("star_count") or 0) < stars or flags.get("is-automated"):
        return False
    return "is-official" not in flags or bool(row.get("is_official")) is flags["is-official"]


def _read(filters: Mapping[str, Sequence[str]]) -> tuple[int, dict[str, bool]]:
    stars, flags = 0, {}
    for key, values in filters.items():
        if key not in _FILTERS:
            raise InvalidInput(f"invalid filter '{key}'")
        for value in values:
            if key == "stars" and value.isdigit():
                stars = max(stars, int(value))
            elif key != "stars" and value.lower() in _FLAGS:
                flags[key] = _FLAGS[value.lower()]
            else:
                raise InvalidInput(f"invalid filter '{key}={value}'")
    return stars, flags
