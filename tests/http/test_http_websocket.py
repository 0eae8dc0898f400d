"""WebSocket: our client and server, a foreign client (websocket-client), and broken peers."""

from __future__ import annotations

import asyncio

import pytest
from http_tools import exchange, serving, statuses

from atoll.http import Client, Disconnected, ProtocolError, Response, UpgradeRefused
from atoll.http.websocket import accept, connect

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A client's frame, masked with zeroes."""
    assert len(payload) < 126
    return bytes([(0x80 if fin else 0) | opcode, 0x80 | len(payload)]) + bytes(4) + payload


async def echo(request):
    socket = await accept(request, ["v5.channel.k8s.io", "v4.channel.k8s.io"], message_max=100_000)
    while (message := await socket.receive()) is not None:
        await socket.send(message)


def test_messages_and_subprotocols_travel():
    async def main():
        async with serving(echo) as port, Client(f"http://127.0.0.1:{port}") as client:
            socket = await connect(client, "/", ["v9", "v4.channel.k8s.io", "v5.channel.k8s.io"])
            assert socket.subprotocol == "v4.channel.k8s.io"
            for message in (b"", b"a", bytes(90_000), "text"):
                await socket.send(message)
                assert await socket.receive() == (message.encode() if isinstance(message, str) else message)
            await socket.ping(b"still there?")
            await socket.send(b"x" * 10)
            assert await socket.receive() == b"x" * 10
            await socket.close()
            assert socket.close_code == 1000
            assert await socket.receive() is None
            with pytest.raises(Disconnected):
                await socket.send(b"late")

    asyncio.run(main())


def test_the_foreign_client_is_served():
    websocket = pytest.importorskip("websocket")

    def talk(port):
        socket = websocket.create_connection(f"ws://127.0.0.1:{port}/", subprotocols=["v4.channel.k8s.io"], timeout=5)
        socket.send_binary(b"\0" + bytes(70_000))
        first = socket.recv()
        socket.ping("p")
        socket.send("text")
        second = socket.recv()
        socket.close()
        return socket.subprotocol, len(first), second

    async def main():
        async with serving(echo) as port:
            assert await asyncio.to_thread(talk, port) == ("v4.channel.k8s.io", 70_001, b"text")

    asyncio.run(main())


def test_fragments_are_joined_and_pings_answered_between_them():
    async def main():
        async with serving(echo) as port:
            data = frame(2, b"he", fin=False) + frame(9, b"ping") + frame(0, b"llo") + frame(8, b"\x03\xe8")
            answer = await exchange(port, HANDSHAKE + data)
        head, _, frames = answer.partition(b"\r\n\r\n")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # the RFC's own example
        assert frames == b"\x8a\x04ping" + b"\x82\x05hello" + b"\x88\x02\x03\xe8"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82\x05hello", 1002),  # not masked
        (frame(3, b""), 1002),  # unknown opcode
        (frame(0, b"x"), 1002),  # a continuation of nothing
        (frame(1, b"\xff\xff"), 1007),  # no UTF-8
        (frame(9, b"x", fin=False), 1002),  # a fragmented control frame
        (b"\x82\xff" + (10**9).to_bytes(8, "big") + bytes(4) + bytes(200_000), 1009),
    ],
)
def test_broken_peers_are_told_why(data, code):
    errors = []

    async def handler(request):
        try:
            await echo(request)
        except ProtocolError as error:
            errors.append(error)

    async def main():
        async with serving(handler) as port:
            answer = await exchange(port, HANDSHAKE + data)
            frames = answer.partition(b"\r\n\r\n")[2]
            assert frames[0] == 0x88
            assert int.from_bytes(frames[2:4], "big") == code

    asyncio.run(main())
    assert len(errors) == 1


def test_bad_handshakes_are_refused():
    def on_error(request, error):
        return Response(400, (), str(error).encode())

    async def main():
        async with serving(echo, on_error=on_error) as port:
            for old, new in (
                (b"GET", b"POST"), (b"Version: 13", b"Version: 8"), (b"Upgrade: websocket", b"Upgrade: tcp"),
                (b"Sec-WebSocket-Key", b"X"), (b"Host: x", b"Host: x\r\nSec-WebSocket-Protocol: v1"),
            ):  # fmt: skip
                answer = await exchange(port, HANDSHAKE.replace(old, new), eof=True)
                assert statuses(answer) == [400], new
            async with Client(f"http://127.0.0.1:{port}") as client:
                with pytest.raises(UpgradeRefused) as caught:
                    await connect(client, "/", ["v1"])
                assert caught.value.status == 400
                assert b"v1" in caught.value.body

    asyncio.run(main())


def test_a_peer_that_vanishes_ends_the_messages():
    codes = []

    async def handler(request):
        socket = await accept(request)
        assert await socket.receive() is None
        codes.append(socket.close_code)

    async def main():
        async with serving(handler) as port:
            await exchange(port, HANDSHAKE, eof=True)

    asyncio.run(main())
    assert codes == [1006]
