"""What can go wrong on the wire, added to the tree of atoll.errors.

InvalidInput
└── ProtocolError      the peer sent bytes that are not HTTP, WebSocket or SPDY (400 while a response can still be sent)
LimitExceeded
└── BodyTooLarge       a body longer than the reader allows (413)
NotFound
└── RouteNotFound      no pattern of the router matches the path (404)
AtollError
├── MethodNotAllowed   the path exists, the method does not (405); carries `allowed`
├── BodyTimeout        the body did not arrive in time (408, sent by the server itself)
└── Disconnected       the peer has gone; also a ConnectionError
"""

from __future__ import annotations

from atoll.errors import AtollError, InvalidInput, LimitExceeded, NotFound


class ProtocolError(InvalidInput):
    pass


class BodyTooLarge(LimitExceeded):
    pass


class BodyTimeout(AtollError):
    pass


class Disconnected(AtollError, ConnectionError):
    pass


class UpgradeRefused(AtollError):
    """`status` and `body` are the server's answer, to be passed on or shown."""

    def __init__(self, what: str, status: int, body: bytes) -> None:
        super().__init__(f"{what}: {status} {body[:500].decode('utf-8', 'replace').strip()}")
        self.status = status
        self.body = body


class RouteNotFound(NotFound):
    pass


class MethodNotAllowed(AtollError):
    """`allowed` lists the methods the path does have, for the Allow header (RFC 9110, 15.5.6)."""

    def __init__(self, method: str, path: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not allowed on {path}; allowed: {', '.join(allowed)}")
        self.allowed = allowed
