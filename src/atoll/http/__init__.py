"""HTTP/1.1 for every face of Atoll: an asyncio server and client over unix sockets, TCP and TLS.

    async def hello(request: Request) -> Response:
        return json_response({"hello": request.segments})

    server = Server(hello)
    await server.start_unix("/run/x.sock")

Handlers take a Request and return a Response; or they push a body (`writer = request.start(...)`) or take the connection over
(`stream = await request.upgrade(...)`), and return None. WebSocket, SPDY/3.1 and HTTP/2 stand on that, in `atoll.http.websocket`,
`atoll.http.spdy` and `atoll.http.http2`. Why an own server: no ASGI server can hijack a connection or speak SPDY, and they cost several
times the CPU (benchmarks/http_server.py).
"""

from atoll.http.client import Client, ClientResponse
from atoll.http.errors import BodyTimeout, BodyTooLarge, Disconnected, MethodNotAllowed, ProtocolError, RouteNotFound, UpgradeRefused
from atoll.http.headers import Headers, Query
from atoll.http.limits import Limits
from atoll.http.request import Peer, Request
from atoll.http.response import Response, json_response, text_response
from atoll.http.router import Router
from atoll.http.server import ErrorHandler, Handler, Server
from atoll.http.stream import Duplex, Stream, connect_tcp, connect_unix, from_socket, pump, splice
from atoll.http.tls_gate import TlsGate
from atoll.http.writer import ResponseWriter

__all__ = [
    "BodyTimeout",
    "BodyTooLarge",
    "Client",
    "ClientResponse",
    "Disconnected",
    "Duplex",
    "ErrorHandler",
    "Handler",
    "Headers",
    "Limits",
    "MethodNotAllowed",
    "Peer",
    "ProtocolError",
    "Query",
    "Request",
    "Response",
    "ResponseWriter",
    "RouteNotFound",
    "Router",
    "Server",
    "Stream",
    "TlsGate",
    "UpgradeRefused",
    "connect_tcp",
    "connect_unix",
    "from_socket",
    "json_response",
    "pump",
    "splice",
    "text_response",
]
