"""The refusals of the API server, in upstream's words: one constructor for each, all of them `StatusError`.

Clients match on code and reason, people and scripts on the words; both follow apimachinery's `api/errors` package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atoll.apiserver.machinery.kind import Cause, Kind
from atoll.errors import StatusError

OBJECT_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
OPTIMISTIC_LOCK = OBJECT_MODIFIED


def _details(kind: Kind, name: str | None, **more: Any) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if kind.group:
        details["group"] = kind.group
    details["kind"] = kind.plural
    details.update(more)
    return details


def not_found(kind: Kind, name: str) -> StatusError:
    return StatusError(404, "NotFound", f'{kind.resource} "{name}" not found', _details(kind, name))


def no_such_path() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(kind: Kind, name: str) -> StatusError:
    return StatusError(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', _details(kind, name))


def conflict(kind: Kind, name: str, why: str) -> StatusError:
    return StatusError(409, "Conflict", f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}', _details(kind, name))


def modified(kind: Kind, name: str) -> StatusError:
    return conflict(kind, name, OBJECT_MODIFIED)


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> StatusError:
    """422. `kind` is named by its Kind here, not by its resource, as upstream does."""
    qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    lines = list(dict.fromkeys(f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in causes))
    text = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    details = {"name": name, "group": kind.group, "kind": kind.kind, "causes": [cause._asdict() for cause in causes]}
    return StatusError(422, "Invalid", f'{qualified} "{name}" is invalid: {text}', {k: v for k, v in details.items() if v})


def forbidden(kind: Kind, name: str | None, why: str) -> StatusError:
    subject = f'{kind.resource} "{name}"' if name else kind.resource
    return StatusError(403, "Forbidden", f"{subject} is forbidden: {why}", _details(kind, name))


def bad_request(why: str) -> StatusError:
    return StatusError(400, "BadRequest", why)


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized")


def method_not_allowed() -> StatusError:
    return StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def unsupported_media_type(why: str) -> StatusError:
    return StatusError(415, "UnsupportedMediaType", why, {})


def not_acceptable(accepted: str) -> StatusError:
    return StatusError(406, "NotAcceptable", f"only the following media types are accepted: {accepted}", {})


def too_large(limit: int) -> StatusError:
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}", {})


def expired(why: str, *, continue_: str = "") -> StatusError:
    return StatusError(410, "Expired", why, metadata={"continue": continue_} if continue_ else None)


def too_old(asked: int, oldest: int) -> StatusError:
    return expired(f"too old resource version: {asked} ({oldest})")


def too_many_requests(why: str, retry_after: int, causes: Sequence[Cause] = ()) -> StatusError:
    details: dict[str, Any] = {"retryAfterSeconds": retry_after} if retry_after else {}
    if causes:
        details["causes"] = [{k: v for k, v in cause._asdict().items() if v} for cause in causes]
    return StatusError(429, "TooManyRequests", why, details)


def version_ahead(asked: int, current: int) -> StatusError:
    """The caller has seen a revision this server has not."""
    return StatusError(
        504,
        "Timeout",
        f"Too large resource version: {asked}, current: {current}",
        {"retryAfterSeconds": 1, "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]},
    )


def timed_out() -> StatusError:
    return StatusError(504, "Timeout", "Timeout: request did not complete within the allotted timeout", {})


def internal(why: str) -> StatusError:
    return StatusError(500, "InternalError", f"Internal error occurred: {why}", {"causes": [{"message": why}]})


def unavailable(why: str) -> StatusError:
    """Without a Retry-After, as upstream: clients would try again ten times before they tell anybody."""
    return StatusError(503, "ServiceUnavailable", why)


def not_supported(why: str) -> StatusError:
    return StatusError(501, "NotImplemented", why)
