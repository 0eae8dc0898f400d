"""Clients that do what no client should: the engine says what is wrong, and lives on."""

import asyncio
import socket

import pytest
from fake_client import CONTROL, FakeClient, Refused

from atoll.build.buildkit import messages, sessions
from atoll.build.buildkit.filesync import DIRECTORY, SYMLINK, PacketType
from atoll.build.buildkit.grpc import Channel, Code, RpcError
from atoll.errors import NotFound
from atoll.http import Disconnected
from atoll.http.http2 import Http2

COPY_ALL = {"Dockerfile": "FROM busybox\nCOPY . /c\n", "f": "content"}


def run(engine, files, scenario, methods=()):
    async def main():
        async with asyncio.timeout(25), FakeClient(engine, files, methods) as client:
            await scenario(client)

    asyncio.run(main())


def sends(*packets):
    """A transfer of the context of these packets; that of the Dockerfile is as it should be."""

    def replace(client):
        good = client.send

        async def send(call, files):
            if "f" not in files:
                await good(call, files)
                return
            for packet in packets:
                await call.send(messages.Packet(**packet))
            while (packet := await call.receive(messages.Packet)) is not None:
                if packet.type == PacketType.FIN:
                    await call.send(packet)

        client.send = send

    return replace


def stat(path, mode=0o644, size=0, **more):
    return {"type": PacketType.STAT, "stat": messages.Stat(path=path, mode=mode, size=size, **more)}


END = {"type": PacketType.STAT}


def test_a_good_client(engine):
    async def scenario(client):
        told = await client.solve()
        assert told["image.name"] == "docker.io/library/faked:latest"
        assert [one["dir-name"] for one in client.asked] == ["dockerfile", "context", "context"]

    run(engine, {**COPY_ALL, "big": "b" * 10_000_000}, scenario)
    assert engine.docker("run", "--rm", "faked", "sh", "-c", "cat /c/f; wc -c < /c/big").stdout == "content10000000\n"


@pytest.mark.parametrize(
    ("packets", "message"),
    [
        ([stat("../f"), END], "climbs out of the root"),
        ([stat("/../../f"), END], "climbs out of the root"),
        ([stat("link", SYMLINK | 0o777, linkname="/etc"), stat("link/passwd"), END], "link/passwd"),
        ([stat("hard", linkname="../../etc/passwd"), END], "points out of the root"),
        ([stat("f", size=3), END, {"type": PacketType.DATA, "ID": 0, "data": b"toolong"}], "sent more than 3 bytes"),
        ([stat("f", size=3), END, {"type": PacketType.DATA, "ID": 0, "data": b"x"}, {"type": PacketType.DATA, "ID": 0}], "1 bytes of 3"),
        ([stat("f", size=3), {"type": PacketType.DATA, "ID": 7, "data": b"x"}], "not asked for: 7"),
        ([stat("f", size=3), {"type": 9}], "unexpected packet of type 9"),
        ([{"type": PacketType.ERR, "data": b"disk on fire"}], "disk on fire"),
        ([stat("d", DIRECTORY | 0o755), stat("d", size=0), stat("d/f"), END], ""),
        ([stat("a\0b"), END], "an impossible file"),
        ([stat("f", size=-5), END], "an impossible file"),
        ([stat("f" * 5000), END], ""),
    ],
)
def test_bad_transfers(engine, packets, message):
    async def scenario(client):
        sends(*packets)(client)
        with pytest.raises(RpcError) as raised:
            await client.solve()
        assert message in raised.value.message
        assert "internal error" not in raised.value.message

    run(engine, COPY_ALL, scenario)
    assert engine.docker("run", "--rm", "busybox", "true").returncode == 0


def test_a_client_that_goes_within_a_transfer(engine):
    async def scenario(client):
        good, begun = client.send, asyncio.Event()

        async def hang(call, files):
            if "f" not in files:
                await good(call, files)
                return
            await client.stat(call, "f", "content")
            begun.set()
            await asyncio.sleep(20)

        client.send = hang
        solving = asyncio.create_task(client.solve())
        await begun.wait()
        await client.session.close()
        with pytest.raises(RpcError, match=r"session has ended|ended the HTTP/2"):
            await solving

    run(engine, COPY_ALL, scenario)
    assert not list((engine.instance.content / "tmp").glob("context-*"))


def test_calls_that_make_no_sense(engine):
    async def scenario(client):
        with pytest.raises(RpcError, match="unknown method") as raised:
            await client.channel.unary("/moby.buildkit.v1.Control/Nothing", messages.InfoRequest(), messages.InfoResponse)
        assert raised.value.code == Code.UNIMPLEMENTED
        with pytest.raises(RpcError, match="needs buildkit-controlapi-buildid"):
            await client.channel.unary("/moby.buildkit.v1.frontend.LLBBridge/Ping", messages.PingRequest(), messages.PongResponse)
        request = messages.SolveRequest(Ref="r", Session=client.id, Frontend="unknown.v0")
        with pytest.raises(RpcError, match=r"the frontend unknown.v0 is not supported"):
            await client.channel.unary(f"{CONTROL}Solve", request, messages.SolveResponse)
        async with client.channel.call(f"{CONTROL}Solve") as call:
            await call._stream.write(b"\x00\x00\x00\x00\x03\xff\xff\xff")
            with pytest.raises(RpcError, match="cannot be read"):
                await call.receive(messages.SolveResponse)
        async with client.channel.call(f"{CONTROL}Solve") as call:
            await call._stream.write(b"\x00\xff\xff\xff\xff")
            with pytest.raises(RpcError, match="the limit is"):
                await call.receive(messages.SolveResponse)
        async with client.channel.call(f"{CONTROL}Info") as call:
            await call._stream.write(b"\x01\x00\x00\x00\x00")
            with pytest.raises(RpcError, match="compressed"):
                await call.receive(messages.InfoResponse)

    run(engine, COPY_ALL, scenario)


def test_sessions_are_one_of_an_id(engine):
    async def scenario(client):
        headers = [("X-Docker-Expose-Session-Uuid", client.id)]
        stream = await client.upgraded("/session", headers)
        assert await stream.read() == b""
        stream.close()
        with pytest.raises(Refused, match="needs an id"):
            await client.upgraded("/session")

    run(engine, COPY_ALL, scenario)


def test_an_upgrade_must_be_asked_for(engine):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(engine.instance.engine_socket))
        raw.sendall(b"POST /grpc HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"Upgrade: h2c" in answer


def test_a_session_that_speaks_something_else(engine):
    async def scenario(client):
        stream = await client.upgraded("/session", [("X-Docker-Expose-Session-Uuid", "gibberish")])
        stream.write(b"HELLO ENGINE" * 10)
        stream.write_eof()
        while await stream.read():
            pass
        stream.close()
        grpc = await client.upgraded("/grpc")
        grpc.write(b"HELLO ENGINE" * 10)
        try:
            while await grpc.read():
                pass
        except Disconnected:
            pass
        grpc.close()
        async with Http2(await client.upgraded("/grpc"), client=True) as again:
            await Channel(again).unary(f"{CONTROL}Info", messages.InfoRequest(), messages.InfoResponse)

    run(engine, COPY_ALL, scenario)


def test_a_session_that_does_not_come(monkeypatch):
    monkeypatch.setattr(sessions, "WAIT_S", 0.01)
    with pytest.raises(NotFound, match="no active session for nobody"):
        asyncio.run(sessions.Sessions().get("nobody"))
