"""The bounds a server holds every client to.

One frozen value, so that a face (engine, API server, kubelet, registry) states its bounds in one place and a test can lower them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds. What happens beyond each bound stands beside it."""

    head: int = 64 * 1024  # request line and headers, answered 431; X-Registry-Auth and bearer tokens run to many KB
    body: int = 16 * 1024 * 1024  # what Request.body() collects unless told otherwise: BodyTooLarge, 413
    head_timeout: float = 30.0  # from the first byte of a head to its last: 408 and close
    body_timeout: float = 60.0  # what Request.body() waits for in all: 408 and close; chunks() has no such bound
    idle_timeout: float = 120.0  # between requests: close without a word; longer than the 90 s of Go's client pool
    linger: float = 2.0  # reading on after an early response, so that the client sees it and not a reset
    stall: float = (
        0.0  # a returned response of which the client takes no byte for so long: cut off; 0 waits for ever, as logs and watches need
    )
    connections: int = 4096  # beyond: 503 and close
