"""Refusals in the distribution protocol's own words: {"errors": [{"code", "message", "detail"}]} (distribution-spec 1.1, "Error Codes").

Code and status go together but for a few cases, where the status says more than the code can.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from atoll.errors import AtollError, InvalidInput, LimitExceeded, NotFound, SystemFailure, Unavailable
from atoll.http import MethodNotAllowed, Request, Response, json_response

log = logging.getLogger("atoll.registry")

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
API_VERSION = (("Docker-Distribution-Api-Version", "registry/2.0"),)  # what old clients know a registry by


class Code(StrEnum):
    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    PAGINATION_NUMBER_INVALID = "PAGINATION_NUMBER_INVALID"  # not in the specification; every registry says it
    SIZE_INVALID = "SIZE_INVALID"
    TAG_INVALID = "TAG_INVALID"  # likewise
    TOOMANYREQUESTS = "TOOMANYREQUESTS"
    UNAUTHORIZED = "UNAUTHORIZED"
    UNKNOWN = "UNKNOWN"
    UNSUPPORTED = "UNSUPPORTED"


STATUS = {
    Code.BLOB_UNKNOWN: 404,
    Code.BLOB_UPLOAD_UNKNOWN: 404,
    Code.MANIFEST_UNKNOWN: 404,
    Code.NAME_UNKNOWN: 404,
    Code.TOOMANYREQUESTS: 429,
    Code.UNAUTHORIZED: 401,
    Code.UNKNOWN: 500,
}  # all others: 400


class Refused(AtollError):
    """An answer of the protocol that is no success."""

    def __init__(
        self, code: Code, message: str, *, detail: Any = None, status: int | None = None, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUS.get(code, 400) if status is None else status
        self.detail = detail
        self.headers = tuple(headers)


def disk_failure(error: OSError) -> Refused:
    """What a client is told where the disk said no."""
    if error.errno in _DISK_FULL:
        log.error("the disk is full: %s", error)
        message = "the registry's disk is full: delete what is not needed and run `atoll registry gc`"
        return Refused(Code.UNKNOWN, message, status=507)
    log.error("the disk failed", exc_info=error)
    return Refused(Code.UNKNOWN, f"the registry's disk failed: {error.strerror}")


def on_error(request: Request, error: Exception) -> Response:
    """The Server's ErrorHandler of this face."""
    refused = _as_refused(request, error)
    entry = {"code": refused.code.value, "message": str(refused)}
    if refused.detail is not None:
        entry["detail"] = refused.detail
    return json_response({"errors": [entry]}, refused.status, (*API_VERSION, *refused.headers))


def _as_refused(request: Request, error: Exception) -> Refused:
    if isinstance(error, Refused):
        return error
    if isinstance(error, MethodNotAllowed):
        return Refused(Code.UNSUPPORTED, str(error), status=405, headers=(("Allow", ", ".join(error.allowed)),))
    if isinstance(error, SystemFailure):
        error = OSError(error.errno, str(error))
    if isinstance(error, OSError) and not isinstance(error, AtollError):
        return disk_failure(error)
    for kind, code, status in (
        (NotFound, Code.UNSUPPORTED, 404),
        (LimitExceeded, Code.SIZE_INVALID, 413),
        (InvalidInput, Code.UNSUPPORTED, 400),
        (Unavailable, Code.UNKNOWN, 503),
    ):
        if isinstance(error, kind):
            return Refused(code, str(error), status=status)
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return Refused(Code.UNKNOWN, "internal error: see the registry's log")
