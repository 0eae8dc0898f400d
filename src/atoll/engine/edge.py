"""The edge of the Engine API: version prefixes, foreign callers, and errors as Docker words them.

Requests come with a version ("/v1.43/containers/json") or without; one router serves all, and a handler that must know asks `api_version`.
A browser's request (it carries Origin, or a Host that is not the engine's name) is refused: on the unix socket, which a proxy may have put
on TCP, and on TCP, where a browser may hold a client's certificate.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import orjson

from atoll import errors
from atoll.engine.containers.lifecycle import NotModified
from atoll.http import BodyTimeout, BodyTooLarge, MethodNotAllowed, Request, Response, Router, json_response
from atoll.http.errors import ProtocolError, RouteNotFound
from atoll.runtime import CommandNotExecutable, CommandNotFound

log = logging.getLogger(__name__)

API_VERSION = (1, 51)  # Docker 28.3's; later clients step down to what _ping names
MIN_API_VERSION = (1, 24)
MAX_API_VERSION = (1, 59)  # tolerated in a path: requests have only ever gained fields
DUMMY_HOSTS = frozenset({"0.0.0.0", "docker.example.com"})  # RFC 2606 keeps example.com from everybody
_VERSION = re.compile(r"v([0-9]{1,3})\.([0-9]{1,3})", re.ASCII)

# The first class that fits counts.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (NotModified, 304),
    (CommandNotFound, 400),
    (CommandNotExecutable, 400),
    (MethodNotAllowed, 405),
    (BodyTimeout, 408),
    (BodyTooLarge, 413),
    (ProtocolError, 400),
    (errors.InvalidInput, 400),
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.LimitExceeded, 413),
    (errors.NotSupported, 501),
    (errors.Unavailable, 503),
)


def api_version(request: Request) -> tuple[int, int]:
    """The version the client asked for; ours where it named none."""
    match = _VERSION.fullmatch(request.segments[0])
    return (int(match[1]), int(match[2])) if match else API_VERSION


class Edge:
    """A handler for http.Server over the engine's router."""

    def __init__(self, router: Router, names: frozenset[str] = frozenset(), on_done: Callable[[], None] | None = None) -> None:
        """`names`: what the engine is called beside names that lead nowhere else, such as localhost. `on_done`: called after a request."""
        self._router = router
        self._names = names
        self._on_done = on_done or _nothing

    async def __call__(self, request: Request) -> Response | None:
        refuse_foreign(request, self._names)
        segments = request.segments
        match = _VERSION.fullmatch(segments[0])
        if match:
            _check_version((int(match[1]), int(match[2])))
            segments = segments[1:] or ("",)
        handler, params = self._router.match(request.method, segments)
        try:
            return await handler(request, **params)
        finally:
            self._on_done()


def _nothing() -> None:
    pass


def _check_version(version: tuple[int, int]) -> None:
    text = "{}.{}".format(*version)
    if version < MIN_API_VERSION:
        raise errors.InvalidInput(
            f"client version {text} is too old. Minimum supported API version is {'{}.{}'.format(*MIN_API_VERSION)}, "
            "please upgrade your client to a newer version"
        )
    if version > MAX_API_VERSION:
        raise errors.InvalidInput(f"client version {text} is too new. Maximum supported API version is {'{}.{}'.format(*API_VERSION)}")


def refuse_foreign(request: Request, names: frozenset[str] = frozenset()) -> None:
    """Raises Forbidden for what a web page sends, or a name that was made to lead here (DNS rebinding)."""
    if request.headers.get("origin"):
        raise errors.Forbidden("requests from web pages are refused: the header Origin is set")
    host = request.headers.get("host") or ""
    name = host.rpartition(":")[0] if re.search(r":[0-9]*$", host) else host
    name = name.lower()
    # Clients of a unix socket send its path, "docker", "localhost", "api.moby.localhost" or "d"; docker by ssh a name that nobody can own.
    is_local = "." not in name or name.endswith(".localhost") or name.startswith(("127.", "%2f", "/")) or name in DUMMY_HOSTS
    if not is_local and not _is_named(name, names):
        where = f"its certificate names {', '.join(sorted(names))}" if names else "it is reached by its socket only"
        raise errors.Forbidden(f"requests for the host {host[:80]!r} are refused by the engine: {where}")


def _is_named(name: str, names: frozenset[str]) -> bool:
    """Whether a host is one of `names`, of which some may begin with "*." for one label (RFC 9525)."""
    return name in names or f"*.{name.partition('.')[2]}" in names


def on_error(request: Request, error: Exception) -> Response:
    """Docker's {"message"} with the status of the error's class; what was not foreseen is logged and stays 500."""
    if isinstance(error, RouteNotFound):
        return json_response({"message": "page not found"}, 404)
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return Response(304) if status == 304 else json_response({"message": str(error)}, status)
    if not isinstance(error, errors.AtollError):
        log.error("%s %s failed", request.method, request.path, exc_info=error)
        return json_response({"message": f"internal error: {type(error).__name__}: see the engine's log"}, 500)
    return json_response({"message": str(error)}, 500)


async def read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object; {} for none. Raises InvalidInput."""
    raw = await request.body()
    if not raw.strip():
        return {}
    kind = (request.headers.get("content-type") or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":  # what a form of a web page could send
        raise errors.InvalidInput(f"unsupported Content-Type header ({kind[:80]}): must be 'application/json'")
    try:
        value = orjson.loads(raw)  # bounded in depth, and strict: no NaN, no lone surrogates, nothing that could not be written again
    except orjson.JSONDecodeError as error:
        raise errors.InvalidInput(f"invalid JSON: {error}") from error
    if not isinstance(value, dict):
        raise errors.InvalidInput("invalid JSON: the body must be an object")
    return value


def integer(text: str | None, name: str, default: int | None = None) -> int | None:
    """A query parameter that is a number. Raises InvalidInput."""
    if text is None or text == "":
        return default
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
        raise errors.InvalidInput(f'invalid value for {name}: "{text}": it must be a number')
    return int(text)
