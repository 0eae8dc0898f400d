"""The tree of errors. Every error Atoll raises on purpose is one of these.

    AtollError
    ├── InvalidInput        the request itself is wrong (HTTP 400)
    ├── Unauthenticated     who are you? (401)
    ├── Forbidden           you may not (403)
    ├── NotFound            no such object (404)
    ├── Conflict            the object's state or another object is in the way (409)
    │   └── InUse           something still uses it
    ├── LimitExceeded       too large, too many, too long (413)
    ├── NotSupported        Atoll does not do this yet (501)
    ├── Unavailable         a peer or a part of Atoll does not answer (503)
    ├── SystemFailure       the kernel or the disk said no (500); carries errno
    ├── DigestMismatch      content is not what its digest says (500)
    └── StatusError         a Kubernetes `Status`: code, reason, message, details, causes

A message says what failed, on which object, why, and the next step, in one sentence a user can act on. The classes know nothing of
HTTP: each face (engine, API server, kubelet) maps them to its own statuses at its edge; the numbers above are that mapping.
"""

from __future__ import annotations

import os
from typing import Any


class AtollError(Exception):
    """Root of the tree. `str(error)` is the message shown to the user."""


class InvalidInput(AtollError):
    pass


class Unauthenticated(AtollError):
    pass


class Forbidden(AtollError):
    pass


class NotFound(AtollError):
    pass


class Conflict(AtollError):
    pass


class InUse(Conflict):
    pass


class LimitExceeded(AtollError):
    pass


class NotSupported(AtollError):
    pass


class Unavailable(AtollError):
    pass


class DigestMismatch(AtollError):
    pass


class SystemFailure(AtollError):
    """A system call failed. `what` names the step and its object: "mount overlay on /x"."""

    def __init__(self, what: str, errno: int) -> None:
        super().__init__(f"{what}: {os.strerror(errno)}")
        self.what = what
        self.errno = errno


class StatusError(AtollError):
    """A Kubernetes API error, the same value on both sides of the wire (meta/v1 Status).

    `reason` is the machine-readable StatusReason ("NotFound", "AlreadyExists", "Conflict", "Invalid", "Forbidden", "Expired", ...),
    `details` the StatusDetails object: name, group, kind, causes, retryAfterSeconds. `metadata` is a list's: where it may be continued.
    """

    def __init__(
        self, code: int, reason: str, message: str, details: dict[str, Any] | None = None, *, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.metadata = metadata or {}
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def status(self) -> dict[str, Any]:
        """The meta/v1 Status object to send."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            body["details"] = self.details
        return body

    @classmethod
    def from_status(cls, status: dict[str, Any]) -> StatusError:
        return cls(
            int(status.get("code") or 500),
            str(status.get("reason") or "Unknown"),
            str(status.get("message") or "unknown error"),
            status.get("details"),
        )
