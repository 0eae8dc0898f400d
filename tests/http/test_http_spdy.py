"""SPDY sessions over socket pairs: streams, windows, resets, and bytes that are no SPDY."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.http import Disconnected, from_socket
from atoll.http.spdy import Session
from atoll.http.spdy_frames import DICTIONARY, FIN, FrameParser, FrameType, HeaderCodec, control_frame, data_frame


@contextlib.asynccontextmanager
async def pair():
    """A server session and, at the other end, a client session."""
    ours, theirs = socket.socketpair()
    server, client = Session(await from_socket(ours)), Session(await from_socket(theirs), client=True)
    try:
        yield server, client
    finally:
        await asyncio.gather(client.close(), server.close())


@contextlib.asynccontextmanager
async def raw():
    """A server session and the bare stream of a hand-made client, one that keeps no windows."""
    ours, theirs = socket.socketpair()
    stream = await from_socket(theirs)
    session = Session(await from_socket(ours))
    try:
        yield session, stream
    finally:
        stream.close()
        await session.close()


def syn_stream(codec: HeaderCodec, number: int, flags: int = 0, **headers: str) -> bytes:
    return control_frame(FrameType.SYN_STREAM, struct.pack(">IIH", number, 0, 0) + codec.encode(headers.items()), flags)


async def frames(stream, count):
    parser = FrameParser()
    found = []
    async with asyncio.timeout(5):
        while len(found) < count:
            data = await stream.read()
            assert data
            found += parser.feed(data)
    return found


async def drained(stream) -> bytes:
    pieces = []
    while piece := await stream.read():
        pieces.append(piece)
    return b"".join(pieces)


def test_the_dictionary_is_the_drafts():
    assert len(DICTIONARY) == 1423
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


def test_headers_survive_and_share_one_compression_stream():
    sender, receiver = HeaderCodec(), HeaderCodec()
    first = sender.encode([("streamType", "data"), ("port", "80"), ("X", "1"), ("x", "2")])
    second = sender.encode([("streamType", "data"), ("port", "80")])
    assert len(second) < len(first)
    decoded = receiver.decode(first)
    assert decoded.get("streamtype") == "data"
    assert decoded.getall("x") == ["1", "2"]
    assert receiver.decode(second).get("PORT") == "80"


def test_streams_carry_megabytes_both_ways_through_small_windows():
    data = bytes(range(256)) * 8_000

    async def main():
        async with pair() as (server, client):

            async def serve():
                async for stream in server.incoming():
                    received = await drained(stream)
                    stream.write(received[::-1])
                    await stream.drain()
                    stream.write_eof()

            async def talk(number):
                stream = await client.open([("n", str(number))])
                stream.write(data)
                await stream.drain()
                stream.write_eof()
                assert await drained(stream) == data[::-1]
                await stream.wait_closed()

            task = asyncio.create_task(serve())
            async with asyncio.timeout(20):
                await talk(0)
                assert client.flow_controlled
                await asyncio.gather(*(asyncio.create_task(talk(n)) for n in range(1)))
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(main())


def test_a_peer_without_windows_is_never_starved_and_a_slow_reader_stops_the_session():
    async def main():
        async with raw() as (session, stream):
            codec = HeaderCodec()
            stream.write(syn_stream(codec, 1, streamtype="data"))
            ours = await anext(session.incoming())
            ours.write(bytes(500_000))  # far beyond the draft's initial window
            received = await frames(stream, 1 + 16)
            assert received[0].type == FrameType.SYN_REPLY
            assert sum(len(frame.payload) for frame in received[1:]) == 500_000
            written = 0
            with contextlib.suppress(TimeoutError):
                while True:
                    stream.write(data_frame(1, bytes(65536)))
                    written += 65536
                    await asyncio.wait_for(stream.drain(), 0.1)
            assert written < 5_000_000
            stream.write(data_frame(1, b"", FIN))
            assert len(await drained(ours)) == written

    asyncio.run(main())


def test_windows_are_kept_once_the_peer_shows_them():
    async def main():
        async with raw() as (session, stream):
            settings_frame = control_frame(FrameType.SETTINGS, struct.pack(">III", 1, 7, 1000))
            stream.write(settings_frame + syn_stream(HeaderCodec(), 1))
            ours = await anext(session.incoming())
            ours.write(b"x" * 2500)
            ours.write_eof()
            reply, data = await frames(stream, 2)
            assert (reply.type, len(data.payload)) == (FrameType.SYN_REPLY, 1000)
            stream.write(control_frame(FrameType.WINDOW_UPDATE, struct.pack(">II", 1, 5000)))
            rest, end = await frames(stream, 2)
            assert len(rest.payload) == 1500
            assert (end.payload, end.flags) == (b"", FIN)

    asyncio.run(main())


def test_pings_resets_and_strays_are_answered():
    async def main():
        async with raw() as (session, stream):
            codec = HeaderCodec()
            stream.write(control_frame(FrameType.PING, struct.pack(">I", 7)) + control_frame(FrameType.PING, struct.pack(">I", 8)))
            stream.write(data_frame(99, b"stray") + syn_stream(codec, 1))
            ping, stray, _ = await frames(stream, 3)
            assert (ping.type, ping.payload) == (FrameType.PING, b"\0\0\0\7")
            assert (stray.type, stray.stream, stray.payload) == (FrameType.RST_STREAM, 99, b"\0\0\0\2")
            incoming = session.incoming()
            first = await anext(incoming)
            stream.write(control_frame(FrameType.RST_STREAM, struct.pack(">II", 1, 5)))
            with pytest.raises(Disconnected):
                await first.read()
            with pytest.raises(Disconnected):
                first.write(b"x")
            stream.write(syn_stream(codec, 3))
            second = await anext(incoming)
            second.reset()
            _, reset = await frames(stream, 2)
            assert (reset.type, reset.stream, reset.payload) == (FrameType.RST_STREAM, 3, b"\0\0\0\5")
            stream.close()
            assert [stream async for stream in incoming] == []

    asyncio.run(main())


BOMB = zlib.compressobj(zdict=DICTIONARY)
BROKEN = {
    "version 2": struct.pack(">HHI", 0x8002, 1, 10) + bytes(10),
    "huge control frame": struct.pack(">HHI", 0x8003, 1, 0xFFFFFF),
    "huge data frame": struct.pack(">II", 1, 0xFFFFFF),
    "no zlib": control_frame(FrameType.SYN_STREAM, struct.pack(">IIH", 1, 0, 0) + b"not zlib"),
    "short": control_frame(FrameType.SYN_STREAM, b"\0\0\0\1"),
    "bomb": control_frame(
        FrameType.SYN_STREAM,
        struct.pack(">IIH", 1, 0, 0) + BOMB.compress(bytes(10_000_000)) + BOMB.flush(zlib.Z_SYNC_FLUSH),
    ),
    "even stream": syn_stream(HeaderCodec(), 2),
    "settings": control_frame(FrameType.SETTINGS, b"\0\0\0\5"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_sessions_end(case):
    async def main():
        async with raw() as (session, stream):
            stream.write(BROKEN[case])
            async with asyncio.timeout(2):
                assert [stream async for stream in session.incoming()] == []
            goaway = (await frames(stream, 1))[0]
            assert (goaway.type, goaway.payload[4:]) == (FrameType.GOAWAY, b"\0\0\0\1")

    asyncio.run(main())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(
    st.binary(max_size=60),
    st.builds(control_frame, st.sampled_from(FrameType), st.binary(max_size=30), st.integers(0, 255)),
    st.builds(data_frame, st.integers(0, 9), st.binary(max_size=30), st.integers(0, 255)),
), max_size=8))  # fmt: skip
def test_no_bytes_crash_a_session(pieces):
    async def main():
        before = asyncio.all_tasks()
        async with raw() as (_, stream):
            with contextlib.suppress(Disconnected):
                stream.write(b"".join(pieces))
                stream.write_eof()
                async with asyncio.timeout(2):
                    while await stream.read():
                        pass
        assert asyncio.all_tasks() == before

    asyncio.run(main())
