"""Forward proxies: which is used, and a request through one that others would have to be trusted for."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest
from http_tools import make_pki, serving

from atoll.errors import InvalidInput, Unavailable
from atoll.http import Client, Response
from atoll.http.proxy import Proxy, proxy_for

ENVIRON = {
    "HTTPS_PROXY": "http://ann:p%40ss@proxy.lan:3128",
    "http_proxy": "plain.lan",
    "NO_PROXY": "corp.lan,.sub.net, 10.0.0.0/8,x.org:5000",
}


@pytest.mark.parametrize(
    ("address", "proxy"),
    [
        ("https://registry-1.docker.io", "proxy.lan:3128"),
        ("http://deb.debian.org", "plain.lan:80"),
        ("https://corp.lan", None),
        ("https://r.corp.lan:5000", None),
        ("https://notcorp.lan", "proxy.lan:3128"),
        ("https://a.sub.net", None),
        ("https://sub.net", "proxy.lan:3128"),
        ("https://10.1.2.3", None),
        ("https://11.1.2.3", "proxy.lan:3128"),
        ("https://x.org:5000", None),
        ("https://x.org", "proxy.lan:3128"),
        ("https://localhost:5000", None),
        ("https://127.0.0.1:5000", None),
        ("https://[::1]:5000", None),
    ],
)
def test_which_proxy(address: str, proxy: str | None):
    found = proxy_for(address, ENVIRON)
    assert (str(found) if found else None) == proxy


def test_everything_may_be_excepted():
    assert proxy_for("https://a.b", {"HTTPS_PROXY": "p", "NO_PROXY": "*"}) is None
    assert proxy_for("https://a.b", {}) is None
    with pytest.raises(InvalidInput, match=r"proxy socks5://p:1 cannot be used"):
        proxy_for("https://a.b", {"HTTPS_PROXY": "socks5://u:secret@p:1"})


class FakeProxy:
    """Connects to whatever `to` is, however it was asked for."""

    def __init__(self, to: int, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.to, self.answer = to, answer
        self.heads: list[bytes] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if not head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
        else:
            writer.write(self.answer)
            if b" 200 " in self.answer:
                there, back = await asyncio.open_connection("127.0.0.1", self.to)
                with contextlib.suppress(ConnectionError):
                    await asyncio.gather(pump(reader, back), pump(there, writer))
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def through(proxy: FakeProxy, base: str, context=None, authorization: str = "") -> bytes:
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with Client(
            base, context, server_hostname="server" if context else None, proxy=Proxy("127.0.0.1", port, authorization)
        ) as client:
            return await (await client.request("GET", "/v2/")).read()
    finally:
        server.close()


def test_tls_goes_through_a_tunnel(tmp_path):
    make_pki(tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(tmp_path / "server.pem")
    client_side = ssl.create_default_context(cafile=tmp_path / "ca.pem")

    async def handler(request):
        return Response(200, (), request.path.encode())

    async def main():
        async with serving(handler, ssl=server_side) as port:
            proxy = FakeProxy(port)
            assert await through(proxy, "https://registry.example:443", client_side, "Basic eDp5") == b"/v2/"
            assert proxy.heads == [
                b"CONNECT registry.example:443 HTTP/1.1\r\nHost: registry.example:443\r\nProxy-Authorization: Basic eDp5\r\n\r\n"
            ]

    asyncio.run(main())


def test_plain_http_asks_for_the_absolute_address():
    async def main():
        proxy = FakeProxy(0)
        assert await through(proxy, "http://mirror.example/debian", authorization="Basic eDp5") == b"plain"
        assert proxy.heads[0].startswith(b"GET http://mirror.example/debian/v2/ HTTP/1.1\r\nHost: mirror.example\r\n")
        assert b"Proxy-Authorization: Basic eDp5\r\n" in proxy.heads[0]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "wants a user and password.*HTTPS_PROXY"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "gives no way to registry.example:443: 403 Forbidden"),
        (b"", "broke off"),
        (b"nonsense\r\n\r\n", "no status"),
    ],
)
def test_refusals_name_the_proxy(answer: bytes, message: str):
    async def main():
        with pytest.raises(Unavailable, match=message):
            await through(FakeProxy(0, answer), "https://registry.example")

    asyncio.run(main())


def test_a_proxy_that_is_not_there():
    async def main():
        async with Client("https://registry.example", proxy=Proxy("127.0.0.1", 1)) as client:
            with pytest.raises(Unavailable, match=r"cannot reach the proxy 127\.0\.0\.1:1"):
                await client.request("GET", "/")

    asyncio.run(main())
