"""Errors as BuildKit's clients expect them: its words, and the lines of the Dockerfile they are about (errdefs, as google.rpc details).

A detail travels as JSON under a name of BuildKit's own; the client prints the lines from it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import orjson

from atoll.build.buildkit import messages
from atoll.build.buildkit.grpc import Code, RpcError
from atoll.build.syntax import DockerfileError
from atoll.build.work import StepFailed
from atoll.errors import AtollError

if TYPE_CHECKING:
    from atoll.build.buildkit.board import Board

SOURCE = "github.com/moby/buildkit/errdefs.Source+json"


def message_of(error: Exception) -> str:
    if isinstance(error, StepFailed):
        killed = " (it was killed for want of memory)" if error.out_of_memory else ""
        return f'process "{" ".join(error.command)}" did not complete successfully: exit code: {error.code}{killed}'
    return str(error) or type(error).__name__


def as_rpc_error(error: AtollError, board: Board) -> RpcError:
    """With the Dockerfile's lines, where it is about any."""
    if isinstance(error, RpcError):
        return error
    status = messages.RpcStatus(code=Code.UNKNOWN, message=message_of(error))  # clients print any other code before the message
    first, last = _lines(error, board)
    if board.source is not None and first:
        info = {"filename": board.source.filename, "data": base64.b64encode(board.source.data).decode(), "language": "Dockerfile"}
        ranges = [{"start": {"line": first}, "end": {"line": last}}]
        status.details.add(type_url=SOURCE, value=orjson.dumps({"info": info, "ranges": ranges}))
    return RpcError(Code.UNKNOWN, status.message, status.SerializeToString())


def _lines(error: AtollError, board: Board) -> tuple[int, int]:
    failed = board.failed
    if isinstance(error, DockerfileError):
        last = failed.last_line if failed is not None and failed.line == error.line else error.line
        return error.line, max(last, error.line)
    return (failed.line, max(failed.last_line, failed.line)) if failed is not None else (0, 0)
