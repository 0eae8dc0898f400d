"""From method and path to a handler.

Patterns are segments: literal, `{name}` for one segment, `{name:path}` for one or more, at any place: `/images/{name:path}/json`,
`/v2/{name:path}/blobs/{digest}`. Matching works on percent-decoded segments, so an encoded slash stays inside its segment. The most
literal pattern wins, whatever the order of adding. Patterns are found by number of segments; those with a `path` part are tried after.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from atoll.http.errors import MethodNotAllowed, RouteNotFound
from atoll.http.request import Request
from atoll.http.response import Response

RouteHandler = Callable[..., Awaitable[Response | None]]
"""Called as `handler(request, **params)`, the params being the decoded parts of the path under their pattern's names."""


@dataclass(slots=True)
class _Route:
    parts: tuple[str, ...]
    names: dict[int, str]  # position in parts -> parameter name
    greedy: int | None  # position of the {name:path} part
    handlers: dict[str, RouteHandler] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[int, ...]:
        """Sorts more literal patterns first, position by position."""
        return tuple(2 if at == self.greedy else 1 if at in self.names else 0 for at in range(len(self.parts)))

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        greedy = self.greedy
        if greedy is None:
            return self._match_plain(self.parts, segments, 0)
        taken = len(segments) - len(self.parts) + 1
        if taken < 1:
            return None
        before = self._match_plain(self.parts[:greedy], segments[:greedy], 0)
        after = self._match_plain(self.parts[greedy + 1 :], segments[greedy + taken :], greedy + 1)
        middle = segments[greedy : greedy + taken]
        if before is None or after is None or not any(middle):
            return None
        return {**before, self.names[greedy]: "/".join(middle), **after}

    def _match_plain(self, parts: tuple[str, ...], segments: tuple[str, ...], offset: int) -> dict[str, str] | None:
        params: dict[str, str] = {}
        for at, (part, segment) in enumerate(zip(parts, segments, strict=True), offset):
            name = self.names.get(at)
            if name is None:
                if part != segment:
                    return None
            elif not segment:
                return None
            else:
                params[name] = segment
        return params


class Router:
    """A table of routes. `router` itself is a Handler, so `Server(router)` serves it."""

    def __init__(self) -> None:
        self._literal: dict[tuple[str, ...], _Route] = {}
        self._by_length: dict[int, list[_Route]] = {}
        self._greedy: list[_Route] = []

    def add(self, method: str, pattern: str, handler: RouteHandler) -> None:
        """Add a route; ValueError where method and pattern are taken. GET also answers HEAD unless HEAD is added."""
        handlers = self._route(pattern).handlers
        if method in handlers:
            raise ValueError(f"{method} {pattern} has a handler already")
        handlers[method] = handler

    def dispatch(self, request: Request) -> tuple[RouteHandler, dict[str, str]]:
        """The handler for a request and its path parameters. Raises RouteNotFound (404) or MethodNotAllowed (405)."""
        return self.match(request.method, request.segments)

    def match(self, method: str, segments: tuple[str, ...]) -> tuple[RouteHandler, dict[str, str]]:
        """As dispatch, for callers that strip a prefix (an API version) from the segments first."""
        literal = self._literal.get(segments)
        if literal is not None and (handler := literal.handlers.get(method)):
            return handler, {}
        allowed: set[str] = set()
        fallback: tuple[RouteHandler, dict[str, str]] | None = None
        for route in (*self._by_length.get(len(segments), ()), *self._greedy):
            params = route.match(segments)
            if params is None:
                continue
            if handler := route.handlers.get(method):
                return handler, params
            if method == "HEAD" and fallback is None and (handler := route.handlers.get("GET")):
                fallback = handler, params
            allowed.update(route.handlers)
        if fallback:
            return fallback
        path = "/" + "/".join(segments)
        if allowed:
            raise MethodNotAllowed(method, path, tuple(sorted(allowed)))
        raise RouteNotFound(f"no such endpoint: {method} {path}")

    async def __call__(self, request: Request) -> Response | None:
        handler, params = self.dispatch(request)
        return await handler(request, **params)

    def routes(self) -> list[tuple[str, str]]:
        """Every (method, pattern), for documentation and tests."""
        found = []
        for route in (*(r for same in self._by_length.values() for r in same), *self._greedy):
            shown = [
                part if at not in route.names else f"{{{route.names[at]}{':path' if at == route.greedy else ''}}}"
                for at, part in enumerate(route.parts)
            ]
            found += [(method, "/" + "/".join(shown)) for method in route.handlers]
        return sorted(found, key=lambda pair: (pair[1], pair[0]))

    def _route(self, pattern: str) -> _Route:
        """The route of a pattern, made on first sight."""
        if not pattern.startswith("/"):
            raise ValueError(f"a pattern starts with a slash: {pattern!r}")
        parts = tuple(pattern[1:].split("/"))
        names: dict[int, str] = {}
        greedy: int | None = None
        for at, part in enumerate(parts):
            if part.startswith("{") and part.endswith("}"):
                name, _, kind = part[1:-1].partition(":")
                if kind == "path" and greedy is None:
                    greedy = at
                elif kind:
                    raise ValueError(f"{pattern!r}: one {{name:path}} at most, and no other kind than path")
                names[at] = name
        same_table = self._greedy if greedy is not None else self._by_length.setdefault(len(parts), [])
        shape = tuple("" if at in names else part for at, part in enumerate(parts))
        for known in same_table:
            if (
                known.names == names
                and known.greedy == greedy
                and shape == tuple("" if at in known.names else part for at, part in enumerate(known.parts))
            ):
                return known
        route = _Route(parts, names, greedy)
        same_table.append(route)
        # Longer greedy patterns hold more literal parts: /v2/{name:path}/tags/list goes before /v2/{name:path}.
        same_table.sort(key=lambda r: (-len(r.parts), r.rank) if r.greedy is not None else (0, r.rank))
        if not names:
            self._literal[parts] = route
        return route
