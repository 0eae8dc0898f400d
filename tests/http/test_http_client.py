"""The client against our server and against servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest
from http_tools import make_pki, serving

from atoll.errors import InvalidInput, Unavailable
from atoll.http import BodyTooLarge, Client, Disconnected, ProtocolError, Response, Server, connect_tcp, connect_unix, json_response, splice


@contextlib.asynccontextmanager
async def scripted(*answers: bytes):
    """A server that gives each connection's n-th request the n-th answer (b"" closes), and counts connections."""
    connections = []

    async def serve(reader, writer):
        connections.append(writer)
        for answer in answers:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
            if not answer:
                break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_connections_are_reused_and_abandoned_bodies_cost_theirs():
    peers = set()

    async def handler(request):
        peers.add(request.peer.address)
        return Response(200, (), b"x" * (5_000_000 if request.path == "/big" else 10))

    async def main():
        async with serving(handler) as port, Client(f"http://127.0.0.1:{port}") as client:
            for _ in range(5):
                assert len(await (await client.request("GET", "/")).read()) == 10
            assert len(peers) == 1
            async with await client.request("GET", "/big"):
                pass
            with pytest.raises(BodyTooLarge):
                await (await client.request("GET", "/big")).read(1000)
            await (await client.request("GET", "/")).read()
            assert len(peers) == 3
            answers = await asyncio.gather(*(client.request("GET", "/") for _ in range(8)))
            assert [len(await answer.read()) for answer in answers] == [10] * 8

    asyncio.run(main())


def test_a_stale_connection_is_replaced_for_idempotent_requests_only():
    async def main():
        async with scripted(OK, b"") as (base, connections), Client(base) as client:
            assert await (await client.request("GET", "/")).read() == b"ok"
            assert await (await client.request("GET", "/")).read() == b"ok"  # the first connection closed on it
            assert len(connections) == 2
            with pytest.raises(Unavailable, match="closed the connection during POST /"):
                await client.request("POST", "/", body=b"x")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", Unavailable),
        (b"HTTP/1.1 200", Unavailable),
        (b"SSH-2.0-OpenSSH_9.2\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000, ProtocolError),
    ],
)
def test_broken_heads_raise(answer, error):
    async def main():
        async with scripted(answer) as (base, _), Client(base) as client:
            with pytest.raises(error):
                await client.request("GET", "/")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (OK + b"and more than was asked for", b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", None),
    ],
)
def test_bodies_end_where_their_framing_says(answer, expected):
    async def main():
        async with scripted(answer) as (base, _), Client(base) as client:
            response = await client.request("GET", "/")
            if expected is None:
                with pytest.raises(Disconnected):
                    await response.read()
            else:
                assert await response.read() == expected

    asyncio.run(main())


def test_errors_name_the_target(instance):
    async def handler(request):
        await asyncio.sleep(60)

    async def main():
        async with Client(f"unix://{instance.home}/none.sock") as client:
            with pytest.raises(Unavailable, match=r"unix:///tmp/at-.*/none\.sock: No such file"):
                await client.request("GET", "/")
        async with Client("http://127.0.0.1:1") as client:
            with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1: Connection refused"):
                await client.request("GET", "/")
        server = Server(handler)
        port = await server.start_tcp("127.0.0.1", 0)
        async with Client(f"http://127.0.0.1:{port}", timeout=0.05) as client:
            with pytest.raises(Unavailable, match=r"did not answer GET /slow within 0\.05 s"):
                await client.request("GET", "/slow")
        await server.close(grace=0)
        with pytest.raises(InvalidInput):
            Client("ftp://x")

    asyncio.run(main())


def test_bodies_stream_both_ways_at_once_and_a_failing_source_is_reported():
    async def handler(request):
        async def back():
            async for piece in request.chunks():
                yield piece.upper()

        return Response(200, (), back())

    async def main():
        async with serving(handler) as port, Client(f"http://127.0.0.1:{port}") as client:
            said = asyncio.Queue()

            async def source():
                while (piece := await said.get()) is not None:
                    yield piece

            said.put_nowait(b"one")
            response = await client.request("POST", "/", body=source())
            pieces = aiter(response)
            assert await anext(pieces) == b"ONE"
            said.put_nowait(b"two")
            assert await anext(pieces) == b"TWO"
            said.put_nowait(None)
            assert [piece async for piece in pieces] == []

            async def broken():
                raise ValueError("no more")
                yield b""

            async def fetch():
                response = await client.request("POST", "/", body=broken(), timeout=5)
                await response.read()

            with pytest.raises(ValueError, match="no more"):
                await fetch()

    asyncio.run(main())


def test_tls_verifies_the_server_and_hands_on_the_client_certificate(tmp_path):
    alice = make_pki(tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(tmp_path / "server.pem")
    server_side.load_verify_locations(tmp_path / "ca.pem")
    server_side.verify_mode = ssl.CERT_OPTIONAL

    async def handler(request):
        if request.upgrade_token:
            stream = await request.upgrade()
            stream.write((await stream.read()).upper())
            return None
        certificate = request.peer.certificate
        return Response(200, (), (certificate or b"none") + await request.body())

    async def main():
        async with serving(handler, ssl=server_side) as port:
            base = f"https://127.0.0.1:{port}"
            for pem, expected in ((None, b"none"), ("alice.pem", alice)):
                client_side = ssl.create_default_context(cafile=tmp_path / "ca.pem")
                if pem:
                    client_side.load_cert_chain(tmp_path / pem)
                async with Client(base, client_side, server_hostname="server") as client:
                    data = bytes(300_000)
                    for _ in range(2):
                        assert await (await client.request("POST", "/", body=data)).read() == expected + data
                    response, stream = await client.upgrade("POST", "/", (("Upgrade", "tcp"),))
                    assert response.status == 101
                    assert not stream.can_write_eof
                    stream.write(b"hello")
                    assert await stream.read() == b"HELLO"
                    stream.close()
                    await stream.wait_closed()
            async with Client(base, ssl.create_default_context(cafile=tmp_path / "ca.pem")) as client:
                with pytest.raises(Unavailable, match="cannot trust"):
                    await client.request("GET", "/")

    asyncio.run(main())


def test_an_upgrade_may_be_refused_with_a_body():
    async def handler(request):
        return json_response({"message": "no such container"}, 404)

    async def main():
        async with serving(handler) as port, Client(f"http://127.0.0.1:{port}") as client:
            response, stream = await client.upgrade("POST", "/attach", (("Upgrade", "tcp"),), b"{}")
            assert stream is None
            assert response.status == 404
            assert b"no such container" in await response.read()

    asyncio.run(main())


def test_splice_joins_two_connections_with_half_close(instance):
    async def backend(request):
        stream = await request.upgrade()
        received = b""
        while data := await stream.read():
            received += data
        stream.write(received[::-1])

    async def main():
        async with Server(backend) as inner:
            path = instance.home / "b.sock"
            await inner.start_unix(path)

            async def proxy(request):
                away = await connect_unix(path)
                away.write(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += await away.read(1)
                await splice(await request.upgrade(), away)

            async with serving(proxy) as port, Client(f"http://127.0.0.1:{port}") as client:
                _, stream = await client.upgrade("POST", "/", (("Upgrade", "tcp"),))
                data = bytes(range(256)) * 10_000

                async def send():
                    for at in range(0, len(data), 50_000):
                        stream.write(data[at : at + 50_000])
                        await stream.drain()
                    stream.write_eof()

                sender = asyncio.create_task(send())
                received = b""
                while piece := await stream.read():
                    received += piece
                await sender
                assert received == data[::-1]
                stream.close()
                await stream.wait_closed()
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            await connect_tcp("127.0.0.1", 1)

    asyncio.run(main())
