"""The relay in user space: streams stay whole and half open, peers are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from atoll.network import relay
from atoll.network.relay import TcpRelay, UdpRelay


def listener(kind):
    held = socket.socket(socket.AF_INET, kind)
    held.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        held.listen()
    held.setblocking(False)
    return held


def test_a_stream_arrives_whole_after_its_sender_has_ended():
    async def run():
        async def serve(reader, writer):
            body = await reader.read()  # to the end, which must be passed on
            writer.write(str(len(body)).encode())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        front = listener(socket.SOCK_STREAM)
        through = TcpRelay(front, server.sockets[0].getsockname()[:2])
        await through.start()
        reader, writer = await asyncio.open_connection(*front.getsockname())
        writer.write(bytes(3_000_000))
        writer.write_eof()
        assert await reader.read() == b"3000000"
        writer.close()
        through.close()
        server.close()
        await asyncio.sleep(0.01)

    asyncio.run(run())


def test_nobody_behind_it_is_a_closed_connection():
    async def run():
        with socket.socket() as gone:
            gone.bind(("127.0.0.1", 0))
            target = gone.getsockname()
        front = listener(socket.SOCK_STREAM)
        through = TcpRelay(front, target)
        await through.start()
        reader, writer = await asyncio.open_connection(*front.getsockname())
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        through.close()
        await asyncio.sleep(0.01)

    asyncio.run(run())


def test_udp_peers_are_bounded(monkeypatch):
    monkeypatch.setattr(relay, "UDP_PEERS_MAX", 4)

    async def run():
        server = listener(socket.SOCK_DGRAM)
        loop = asyncio.get_running_loop()
        front = listener(socket.SOCK_DGRAM)
        through = UdpRelay(front, server.getsockname())
        await through.start()
        clients = [listener(socket.SOCK_DGRAM) for _ in range(10)]
        for number, client in enumerate(clients):
            client.sendto(bytes([number]), front.getsockname())
        senders = [(await asyncio.wait_for(loop.sock_recvfrom(server, 10), 1)) for _ in clients]
        assert len(through._peers) == 4
        data, back = senders[-1]
        server.sendto(b"answer", back)
        assert await asyncio.wait_for(loop.sock_recv(clients[data[0]], 10), 1) == b"answer"
        through.close()
        for held in (*clients, server):
            held.close()
        await asyncio.sleep(0)

    asyncio.run(run())
