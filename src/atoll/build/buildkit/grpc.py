"""gRPC over HTTP/2 streams, both sides of it (grpc.io, "gRPC over HTTP2"): messages behind five bytes, a status in the trailers.

`Services` answers calls on a connection that a client opened; `Channel` makes calls on one that was handed over. No package does both on a
byte stream that is already open: grpcio owns its sockets in C, grpclib its asyncio transports.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Self
from urllib.parse import quote, unquote

from h2.errors import ErrorCodes

from atoll import errors
from atoll.errors import AtollError
from atoll.http import Disconnected
from atoll.http.http2 import Http2, Http2Stream

log = logging.getLogger(__name__)

MESSAGE_MAX = 16 << 20  # bytes of one message, as in the reference implementation
CONTENT = ("content-type", "application/grpc")
_HEAD = struct.Struct(">BI")


class Code(IntEnum):
    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


# The first class that fits counts.
_CODES: tuple[tuple[type[Exception], Code], ...] = (
    (errors.NotSupported, Code.UNIMPLEMENTED),
    (errors.InvalidInput, Code.INVALID_ARGUMENT),
    (errors.NotFound, Code.NOT_FOUND),
    (errors.Unauthenticated, Code.UNAUTHENTICATED),
    (errors.Forbidden, Code.PERMISSION_DENIED),
    (errors.LimitExceeded, Code.RESOURCE_EXHAUSTED),
    (errors.Unavailable, Code.UNAVAILABLE),
)


class RpcError(AtollError):
    """A call that ended with another status than OK. `details` is a serialised google.rpc.Status, b"" where there is none."""

    def __init__(self, code: int, message: str, details: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


def code_of(error: Exception) -> int:
    if isinstance(error, RpcError):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.UNKNOWN)


class Call:
    """One call, from either side: messages out and in. `metadata` is what the other side sent along, names in small letters."""

    def __init__(self, stream: Http2Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    @property
    def metadata(self) -> Mapping[str, str]:
        return dict(self._stream.headers)

    def every(self, name: str) -> list[str]:
        """All values of one name in the metadata."""
        return [value for key, value in self._stream.headers if key == name]

    async def send(self, message: Any) -> None:
        """Raises Disconnected."""
        data = message.SerializeToString()
        await self._stream.write(_HEAD.pack(0, len(data)) + data)

    async def receive(self, kind: Any) -> Any:
        """The next message, of KIND; None after the last. Raises Disconnected, RpcError."""
        if not await self._fill(_HEAD.size):
            return None
        compressed, size = _HEAD.unpack_from(self._buffer)
        if compressed:
            raise RpcError(Code.UNIMPLEMENTED, "compressed messages are not read")
        if size > MESSAGE_MAX:
            raise RpcError(Code.RESOURCE_EXHAUSTED, f"a message has {size} bytes; the limit is {MESSAGE_MAX}")
        end = _HEAD.size + size
        if not await self._fill(end):
            raise RpcError(Code.INTERNAL, "a message is cut short")
        with memoryview(self._buffer) as view:
            message = _parsed(kind, bytes(view[_HEAD.size : end]))
        del self._buffer[:end]
        return message

    async def _fill(self, size: int) -> bool:
        while len(self._buffer) < size:
            data = await self._stream.read()
            if not data:
                if self._buffer:
                    raise RpcError(Code.INTERNAL, "a message is cut short")
                return False
            self._buffer += data
        return True

    def write_eof(self) -> None:
        """No more messages of ours."""
        self._stream.write_eof()


def _parsed(kind: Any, data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise RpcError(Code.INVALID_ARGUMENT, f"a {kind.DESCRIPTOR.name} message cannot be read: {error}") from error


# Serving

Handler = Callable[[Call], Awaitable[None]]


class Services:
    """Answers calls by their path, "/package.Service/Method"."""

    def __init__(self, methods: Mapping[str, Handler]) -> None:
        self._methods = methods

    async def serve(self, connection: Http2) -> None:
        """Until the peer has gone; its calls are then cancelled, and have ended when this returns."""
        calls: set[asyncio.Task[None]] = set()
        try:
            async for stream in connection.incoming():
                task = asyncio.create_task(self._answer(stream), name=f"call of {dict(stream.headers).get(':path')}")
                calls.add(task)
                task.add_done_callback(calls.discard)
        finally:
            for task in calls:
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    async def _answer(self, stream: Http2Stream) -> None:
        """A call whose client gives it up is cancelled."""
        work = asyncio.ensure_future(self._run(stream))
        gone = asyncio.ensure_future(stream.wait_broken())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _run(self, stream: Http2Stream) -> None:
        path = dict(stream.headers).get(":path", "")
        try:
            stream.send_headers([(":status", "200"), CONTENT])
            handler = self._methods.get(path)
            if handler is None:
                raise RpcError(Code.UNIMPLEMENTED, f"unknown method {path}")
            await handler(Call(stream))
            stream.send_headers([("grpc-status", "0")], end=True)
        except Exception as error:
            if not isinstance(error, AtollError):
                log.exception("%s failed", path)
            self._refuse(stream, error)
        if stream.unread:
            stream.reset(ErrorCodes.NO_ERROR)  # the client need not send the rest (RFC 9113, 8.1)

    def _refuse(self, stream: Http2Stream, error: Exception) -> None:
        message = str(error) if isinstance(error, AtollError) else f"internal error: {type(error).__name__}: see the engine's log"
        trailers = [("grpc-status", str(int(code_of(error)))), ("grpc-message", quote(message, safe=" !\"#$&'()*+,/:;<=>?@[]^`{|}"))]
        if isinstance(error, RpcError) and error.details:
            trailers.append(("grpc-status-details-bin", base64.b64encode(error.details).decode().rstrip("=")))
        try:
            stream.send_headers(trailers, end=True)
        except Disconnected:
            return


def unary(kind: Any, answer: Callable[[Any, Call], Awaitable[Any]]) -> Handler:
    """A method of one message each way."""

    async def handle(call: Call) -> None:
        request = await call.receive(kind)
        if request is None:
            raise RpcError(Code.INTERNAL, "the request has no message")
        await call.send(await answer(request, call))

    return handle


# Calling


class Channel:
    """Calls on a connection that is open already."""

    def __init__(self, connection: Http2) -> None:
        self._connection = connection

    async def unary(self, path: str, request: Any, kind: Any, metadata: Sequence[tuple[str, str]] = ()) -> Any:
        """The one answer to one message, of KIND. Raises RpcError, Disconnected."""
        async with self.call(path, metadata) as call:
            await call.send(request)
            call.write_eof()
            answer = await call.receive(kind)
            await call.finish()
        if answer is None:
            raise RpcError(Code.INTERNAL, f"{path} gave no answer")
        return answer

    def call(self, path: str, metadata: Sequence[tuple[str, str]] = ()) -> OutgoingCall:
        """A call of any number of messages each way; given up where the block is left before its end."""
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"), ("te", "trailers"), CONTENT]
        return OutgoingCall(self._connection.open([*head, *metadata]))


class OutgoingCall(Call):
    """Ours, so the status comes to us: `receive` raises it where it is not OK."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stream.reset()

    async def receive(self, kind: Any) -> Any:
        message = await super().receive(kind)
        if message is None:
            self._check()
        return message

    async def finish(self) -> None:
        """Waits for the status. Raises RpcError where it is not OK."""
        self.write_eof()
        while await self._stream.read():
            pass
        self._check()

    def _check(self) -> None:
        fields = {**dict(self._stream.headers), **dict(self._stream.trailers)}
        code = int(fields.get("grpc-status", Code.UNKNOWN))
        if code:
            packed = fields.get("grpc-status-details-bin", "")
            details = base64.b64decode(packed + "=" * (-len(packed) % 4)) if packed else b""
            raise RpcError(code, unquote(fields.get("grpc-message", "")) or f"the call ended with status {code}", details)
