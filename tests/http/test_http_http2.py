"""HTTP/2 over a socket pair: both sides ours, and against h2 itself where the peer misbehaves."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hyperframe.frame import DataFrame

from atoll.http import Disconnected, from_socket
from atoll.http.http2 import STREAM_WINDOW, Http2

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "localhost")]


@asynccontextmanager
async def pair():
    """A client and a server."""
    ours, theirs = socket.socketpair()
    async with Http2(await from_socket(ours), client=True) as client, Http2(await from_socket(theirs), client=False) as server:
        yield client, server


async def first(server):
    async with asyncio.timeout(5):
        return await anext(server.incoming())


def run(main):
    async def bounded():
        async with asyncio.timeout(20):
            await main()

    asyncio.run(bounded())


def test_a_request_and_its_response():
    async def main():
        async with pair() as (client, server):
            asked = client.open([*REQUEST, ("x-name", "é")])
            await asked.write(b"question")
            asked.write_eof()
            got = await first(server)
            assert dict(got.headers) == {**dict(REQUEST), "x-name": "é"}
            assert await got.read() == b"question"
            assert await got.read() == b""
            got.send_headers([(":status", "200")])
            await got.write(b"answer")
            got.send_headers([("x-status", "0")], end=True)
            assert dict(await asked.response())[":status"] == "200"
            assert [await asked.read(), await asked.read()] == [b"answer", b""]
            assert asked.trailers == [("x-status", "0")]

    run(main)


def test_a_writer_waits_for_its_reader():
    async def main():
        async with pair() as (client, server):
            asked = client.open(REQUEST)
            writing = asyncio.create_task(asked.write(bytes(4 * STREAM_WINDOW)))
            got = await first(server)
            await asyncio.sleep(0.05)
            assert not writing.done()
            size = 0
            while size < 4 * STREAM_WINDOW:
                size += len(await got.read())
            await writing

    run(main)


def test_one_slow_reader_does_not_hold_up_the_others():
    async def main():
        async with pair() as (client, server):
            slow = client.open(REQUEST)
            writing = asyncio.create_task(slow.write(bytes(2 * STREAM_WINDOW)))
            await first(server)
            quick = client.open(REQUEST)
            await quick.write(b"through")
            assert await (await first(server)).read() == b"through"
            assert not writing.done()
            slow.reset()
            with pytest.raises(Disconnected):
                await writing

    run(main)


def test_a_reset_is_heard():
    async def main():
        async with pair() as (client, server):
            asked = client.open(REQUEST)
            got = await first(server)
            asked.reset()
            await got.wait_broken()
            with pytest.raises(Disconnected, match="CANCEL"):
                await got.read()
            with pytest.raises(Disconnected):
                await got.write(b"late")
            again = client.open(REQUEST)  # the connection lives on
            again.write_eof()
            assert await (await first(server)).read() == b""

    run(main)


def test_the_end_of_the_connection_ends_its_streams():
    async def main():
        async with pair() as (client, server):
            asked = client.open(REQUEST)
            await first(server)
            await server.close()
            with pytest.raises(Disconnected):
                await asked.response()
            await client.wait_ended()
            with pytest.raises(Disconnected, match="has ended"):
                client.open(REQUEST)

    run(main)


@pytest.mark.parametrize("bytes_sent", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64, b""])
def test_what_is_no_http2_ends_it(bytes_sent):
    async def main():
        ours, theirs = socket.socketpair()
        async with Http2(await from_socket(theirs), client=False) as server:
            ours.sendall(bytes_sent)
            ours.shutdown(socket.SHUT_WR)
            assert [stream async for stream in server.incoming()] == []
        ours.close()

    run(main)


def test_more_streams_than_allowed_end_it():
    async def main():
        ours, theirs = socket.socketpair()
        async with Http2(await from_socket(theirs), client=False) as server:
            peer = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
            peer.initiate_connection()
            peer.remote_settings.max_concurrent_streams = 10_000
            for number in range(1, 2001, 2):
                peer.send_headers(number, REQUEST)
            await asyncio.get_running_loop().sock_sendall(_nonblocking(ours), peer.data_to_send())
            await server.wait_ended()
        ours.close()

    run(main)


def _nonblocking(sock):
    sock.setblocking(False)
    return sock


def test_frames_are_not_dumped_for_a_trace():
    """h2 words each frame it receives, whether or not anybody reads it: of the body it must say no more than its size."""
    assert repr(DataFrame(1, b"x" * 1000)).endswith(": 1000 bytes")
