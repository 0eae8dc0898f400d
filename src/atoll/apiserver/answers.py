"""What every answer to a resource request has in common: its form, its headers, and errors as Status objects."""

from __future__ import annotations

import orjson

from atoll import errors
from atoll.apiserver.call import Call
from atoll.apiserver.fairness.gate import JSON_UNCACHED
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.negotiate import BINARY, SERVED, Form, negotiate
from atoll.apiserver.machinery.protobuf_encode import is_encodable
from atoll.http import Request, Response

_BY_CLASS: tuple[tuple[type[errors.AtollError], int, str], ...] = (
    (errors.InvalidInput, 400, "BadRequest"),
    (errors.Unauthenticated, 401, "Unauthorized"),
    (errors.Forbidden, 403, "Forbidden"),
    (errors.NotFound, 404, "NotFound"),
    (errors.Conflict, 409, "Conflict"),
    (errors.LimitExceeded, 413, "RequestEntityTooLarge"),
    (errors.NotSupported, 501, "NotImplemented"),
    (errors.Unavailable, 503, "ServiceUnavailable"),
)


def form_of(call: Call, request: Request, shapes: frozenset[str]) -> Form:
    """What the client wants to have. Raises StatusError 406, before anything is done."""
    kind = call.face
    form = negotiate(request.headers.get("accept"), shapes, binary=kind.builtin)
    if form == BINARY and not is_encodable(kind.api_version, kind.kind):
        raise statuses.not_acceptable(SERVED)
    return form


def respond(body: bytes, form: Form, status: int = 200, warnings: list[str] | None = None) -> Response:
    headers = JSON_UNCACHED if form.media == "json" else (("Content-Type", form.content_type), *JSON_UNCACHED[1:])
    if warnings:
        headers = (*headers, *(("Warning", f"299 - {_quoted(warning)}") for warning in dict.fromkeys(warnings)))
    return Response(status, headers, body)


def _quoted(text: str) -> str:
    escaped = "".join(c if c.isprintable() else " " for c in text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def tell(error: errors.AtollError) -> Response:
    """A Status, whichever of our errors it is."""
    if not isinstance(error, errors.StatusError):
        code, reason = next(((code, reason) for cls, code, reason in _BY_CLASS if isinstance(error, cls)), (500, "InternalError"))
        error = errors.StatusError(code, reason, str(error))
    headers = JSON_UNCACHED
    retry = (error.details or {}).get("retryAfterSeconds")
    if retry:
        headers = (*headers, ("Retry-After", str(retry)))
    if error.code == 401:
        headers = (*headers, ("WWW-Authenticate", 'Bearer realm="kubernetes"'))
    return Response(error.code, headers, orjson.dumps(error.status()))
