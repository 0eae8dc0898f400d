"""What the server takes and refuses on the wire."""

from __future__ import annotations

import asyncio
import logging

import pytest
from http_tools import exchange, serving, statuses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.http import Limits, Response

SMUGGLING = {
    "length and chunked": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "two equal lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    "list of lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nabcde",
    "negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "signed length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nabcde",
    "huge length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "hidden coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "unknown coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "twice chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding in 1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "blank before colon": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded field": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare line feed": b"GET / HTTP/1.1\nHost: x\r\nX: y\n\r\n\r\n",
    "bare carriage return": b"GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    "NUL in a field": b"GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "unknown method": b"FETCH / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "other expectation": b"POST / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n1",
}


async def echo(request):
    return Response(200, (("X-Method", request.method), ("X-Path", request.path)), await request.body())


@pytest.mark.parametrize("case", SMUGGLING)
def test_ambiguous_requests_are_refused_and_the_connection_closed(case):
    async def main():
        async with serving(echo) as port:
            answer = await exchange(port, SMUGGLING[case] + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
            assert len(statuses(answer)) == 1
            assert 400 <= statuses(answer)[0] <= 505
            assert b"Connection: close" in answer
            assert b"smuggled" not in answer

    asyncio.run(main())


def test_pipelined_requests_are_answered_in_order():
    async def main():
        async with serving(echo) as port:
            answer = await exchange(
                port,
                b"\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n"
                b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
                b"GET http://x/c?d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            )
            assert statuses(answer) == [200, 200, 200]
            assert answer.index(b"X-Path: /a") < answer.index(b"abc") < answer.index(b"X-Path: /c")

    asyncio.run(main())


def test_a_body_split_at_every_byte_arrives_whole():
    request = (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\n1234"
    )

    async def main():
        async with serving(echo) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for at in range(len(request)):
                writer.write(request[at : at + 1])
                await asyncio.sleep(0)
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            assert statuses(answer) == [200, 200]
            assert b"hello world" in answer
            assert answer.endswith(b"1234")

    asyncio.run(main())


def test_http10_gets_a_body_ended_by_the_connection():
    async def pieces():
        yield b"one"
        yield b"two"

    async def handler(request):
        return Response(200, (), pieces())

    async def main():
        async with serving(handler) as port:
            answer = await exchange(port, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert answer.endswith(b"\r\n\r\nonetwo")
            assert b"chunked" not in answer

    asyncio.run(main())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 5000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 5000, 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + b"a" * 2000, 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\nabc", 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"a" * 2000 + b"\r\n0\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"e" * 5000, 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: " + b"e" * 5000, 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", 408),
        (b"GET / HTTP/1.1\r\nHost:", 408),
    ],
)
def test_limits_answer_with_their_own_status(data, status):
    def on_error(request, error):
        return Response(413, (), b"too large")

    async def main():
        limits = Limits(head=1024, body=1000, head_timeout=0.1, body_timeout=0.1, idle_timeout=0.1, linger=0.1)
        async with serving(echo, limits=limits, on_error=on_error) as port:
            answer = await exchange(port, data)
            assert statuses(answer) == [status]

    asyncio.run(main())


def test_idle_connections_are_closed_and_surplus_ones_refused():
    async def main():
        async with serving(echo, limits=Limits(idle_timeout=0.1, connections=1, linger=0.1)) as port:
            first = asyncio.create_task(exchange(port, b""))
            await asyncio.sleep(0.03)
            assert statuses(await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")) == [503]
            assert await first == b""

    asyncio.run(main())


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.sampled_from([
                b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n", b"\r\n\r\n", b"Content-Length: 5\r\n",
                b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"Connection: Upgrade\r\nUpgrade: tcp\r\n",
                b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"HTTP/1.0\r\n", b"\0", b"%zz",
            ]),
        ),
        max_size=12,
    ),
    st.booleans(),
)  # fmt: skip
def test_no_bytes_crash_the_server_or_leave_a_task(pieces, eof):
    """Whatever comes: answers are well-formed, the connection ends, nothing is logged as a failure."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("atoll").addHandler(handler)
    logging.getLogger("asyncio").addHandler(handler)

    async def run():
        async with serving(echo, limits=Limits(head_timeout=0.02, body_timeout=0.02, idle_timeout=0.02, linger=0.02)) as port:
            answer = await exchange(port, b"".join(pieces), eof=eof)
            assert not answer or answer.startswith(b"HTTP/1.1 ")
            assert all(status in range(200, 600) or status == 100 for status in statuses(answer))
            assert 500 not in statuses(answer)

    try:
        asyncio.run(run())
    finally:
        logging.getLogger("atoll").removeHandler(handler)
        logging.getLogger("asyncio").removeHandler(handler)
    assert not records
