"""The server seen from its handlers: bodies, streams, upgrades, clients that vanish, sockets, TLS, the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import os
import shutil
import socket
import stat
import subprocess
import weakref

import pytest
from http_tools import exchange, serving, statuses

from atoll.errors import InUse, InvalidInput
from atoll.http import Client, Disconnected, Headers, Limits, Response, Router, Server, json_response

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_response_head_is_complete_and_exact():
    async def handler(request):
        return json_response({"a": 1}, 201, (("X-One", "1"),))

    async def main():
        async with serving(handler) as port:
            answer = await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 201 Created"
        assert lines[1:3] == [b"Content-Type: application/json", b"X-One: 1"]
        assert lines[3].startswith(b"Date: ")
        assert lines[3].endswith(b" GMT")
        assert lines[4:] == [b"Content-Length: 7", b"Connection: close"]
        assert body == b'{"a":1}'

    asyncio.run(main())


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_bodiless_responses_send_no_body_and_keep_the_connection(method, status):
    async def handler(request):
        return Response(status, (("ETag", '"x"'),), b"never sent")

    async def main():
        async with serving(handler) as port:
            request = f"{method} / HTTP/1.1\r\nHost: x\r\n".encode()
            answer = await exchange(port, request + b"\r\n" + request + b"Connection: close\r\n\r\n")
        assert statuses(answer) == [status, status]
        assert b"never" not in answer
        assert (b"Content-Length: 10" in answer) == (method == "HEAD")

    asyncio.run(main())


def test_head_keeps_a_declared_length():
    async def handler(request):
        return Response(200, (("Content-Length", "12345"),))

    async def main():
        async with serving(handler) as port, Client(f"http://127.0.0.1:{port}") as client:
            response = await client.request("HEAD", "/blob")
            assert response.headers.get("content-length") == "12345"
            assert await response.read() == b""

    asyncio.run(main())


def test_header_injection_becomes_a_500(caplog):
    async def handler(request):
        return Response(200, (("X", request.query.get("x")),))

    async def main():
        async with serving(handler) as port:
            answer = await exchange(port, b"GET /?x=a%0d%0aSet-Cookie:%20b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert statuses(answer) == [500]
        assert b"Cookie" not in answer

    asyncio.run(main())
    assert "line break" in caplog.text


def test_a_failing_handler_answers_500_without_a_traceback(caplog):
    async def handler(request):
        raise ValueError("secret")

    async def main():
        async with serving(handler) as port:
            answer = await exchange(port, GET + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert statuses(answer) == [500, 500]
        assert b"secret" not in answer
        assert b"Traceback" not in answer

    asyncio.run(main())
    assert "secret" in caplog.text


def test_failing_after_the_head_cuts_the_body_short(caplog):
    async def pieces():
        yield b"first"
        raise ValueError("broken")

    async def handler(request):
        return Response(200, (), pieces())

    async def main():
        async with serving(handler) as port, Client(f"http://127.0.0.1:{port}") as client:
            response = await client.request("GET", "/")
            with pytest.raises(Disconnected):
                await response.read()

    asyncio.run(main())


@pytest.mark.parametrize("count", [9, 11])
def test_a_body_of_another_length_than_declared_is_cut(count, caplog):
    async def pieces():
        yield b"x" * count

    async def handler(request):
        return Response(200, (("Content-Length", "10"),), pieces())

    async def main():
        async with serving(handler) as port:
            answer = await exchange(port, GET)
            assert len(answer.partition(b"\r\n\r\n")[2]) < 10

    asyncio.run(main())


def test_expect_continue_is_answered_only_when_the_body_is_wanted():
    async def handler(request):
        return Response(200, (), await request.body()) if request.path == "/take" else Response(403)

    async def main():
        async with serving(handler, limits=Limits(linger=0.1)) as port:
            for path, expected in (("/take", b"HTTP/1.1 100 Continue\r\n\r\n"), ("/refuse", b"HTTP/1.1 403 ")):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"PUT {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n".encode())
                assert (await reader.read(1000)).startswith(expected)
                writer.close()
                await writer.wait_closed()

    asyncio.run(main())


def test_an_early_answer_reaches_a_client_that_is_still_sending():
    async def handler(request):
        return Response(403, (), b"no")

    async def main():
        async with serving(handler, limits=Limits(linger=0.5)) as port:
            answer = await asyncio.to_thread(_upload, port)
            assert answer == (403, b"no")

    asyncio.run(main())


def _upload(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", "8000000")
    connection.endheaders()
    with contextlib.suppress(ConnectionError):
        for _ in range(80):
            connection.send(bytes(100_000))
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def test_a_slow_reader_bounds_what_a_stream_buffers():
    produced = 0

    async def pieces():
        nonlocal produced
        while True:
            produced += 1
            yield bytes(65536)

    async def handler(request):
        return Response(200, (), pieces())

    async def main():
        async with serving(handler) as port:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.send(GET)
                before = -1
                while produced != before:
                    before = produced
                    await asyncio.sleep(0.1)
                assert 0 < produced * 65536 < 16_000_000  # the kernel's socket buffers and one high-water mark
            await asyncio.sleep(0.05)

    asyncio.run(main())


@pytest.mark.parametrize("reads", [False, True])
def test_a_reader_that_stalls_is_cut_off_and_a_slow_one_is_not(reads):
    ended = asyncio.Event()

    async def pieces():
        try:
            while True:
                yield bytes(65536)
        finally:
            ended.set()

    async def handler(request):
        return Response(200, (), pieces())

    async def main():
        loop = asyncio.get_running_loop()
        async with serving(handler, limits=Limits(stall=0.3)) as port:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.setblocking(False)
                await loop.sock_sendall(sock, GET)
                end = loop.time() + 1.5
                while reads and loop.time() < end:
                    await loop.sock_recv(sock, 1 << 20)
                    await asyncio.sleep(0.02)
                assert not ended.is_set()
                async with asyncio.timeout(5):
                    await ended.wait()

    asyncio.run(main())


def test_a_slow_handler_bounds_what_a_body_buffers():
    release = asyncio.Event()

    async def handler(request):
        await release.wait()
        return json_response(sum([len(piece) async for piece in request.chunks()]))

    async def main():
        async with serving(handler) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\nConnection: close\r\n\r\n")
            writer.write(bytes(30_000_000))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.drain(), 0.3)
            release.set()
            assert (await reader.read()).endswith(b"30000000")
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


def test_a_vanished_client_ends_an_iterator_body():
    ended = asyncio.Event()

    async def pieces():
        try:
            yield b"first"
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def handler(request):
        return Response(200, (), pieces())

    async def main():
        async with serving(handler) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            await reader.readuntil(b"first")
            writer.close()
            await writer.wait_closed()
            async with asyncio.timeout(2):
                await ended.wait()

    asyncio.run(main())


def test_a_vanished_client_is_told_to_the_handler_but_does_not_cancel_it():
    finished = asyncio.Event()

    async def handler(request):
        await request.wait_disconnected()
        await asyncio.sleep(0.02)
        finished.set()
        return Response(200)

    async def main():
        async with serving(handler) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            await asyncio.sleep(0.02)
            writer.close()
            await writer.wait_closed()
            async with asyncio.timeout(2):
                await finished.wait()

    asyncio.run(main())


def test_a_client_that_goes_amid_its_body_breaks_the_read():
    seen = []

    async def handler(request):
        try:
            await request.body()
        except Disconnected as error:
            seen.append(error)
            raise
        return Response(200)

    async def main():
        async with serving(handler) as port:
            assert statuses(await exchange(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", eof=True)) == [400]

    asyncio.run(main())
    assert len(seen) == 1


def test_pushed_streams_fan_out_and_a_slow_one_is_cut_off():
    writers = []
    both = asyncio.Event()

    async def watch(request):
        writers.append(request.start(200, (("Content-Type", "application/json"),)))
        if len(writers) == 2:
            both.set()
        await request.wait_disconnected()

    async def main():
        async with serving(watch) as port, Client(f"http://127.0.0.1:{port}") as client:
            quick = await client.request("GET", "/quick")
            with socket.create_connection(("127.0.0.1", port)) as slow:
                slow.send(GET)
                await both.wait()
                event = bytes(100_000)
                events = aiter(quick)
                cut = None
                for number in range(500):
                    for writer in writers:
                        if writer.buffered > 1_000_000:
                            writer.abort()
                            cut = number
                        elif not writer.closed:
                            writer.write(event)
                    if cut:
                        break
                    received = 0
                    while received < len(event):
                        received += len(await anext(events))
                assert cut
                assert [writer.closed for writer in writers] == [False, False]  # told in the loop's next turn
                await asyncio.sleep(0.01)
                assert [writer.closed for writer in writers] == [False, True]
                with pytest.raises(Disconnected):
                    writers[1].write(b"x")
            quick.close()

    asyncio.run(main())


@pytest.mark.parametrize("asks", [True, False])
def test_a_hijacked_connection_carries_early_bytes_and_half_closes(asks):
    async def handler(request):
        body = await request.body()
        stream = await request.upgrade((("Content-Type", "application/vnd.docker.raw-stream"),))
        received = b""
        while data := await stream.read():
            received += data
        stream.write(b"body=%b stdin=%b" % (body, received))

    async def main():
        async with serving(handler) as port:
            fields = b"Connection: Upgrade\r\nUpgrade: tcp\r\n" if asks else b""
            request = b"POST /exec/1/start HTTP/1.1\r\nHost: x\r\n" + fields + b"Content-Length: 2\r\n\r\n{}\x00raw \r\n\r\n bytes"
            answer = await exchange(port, request, eof=True)
        assert statuses(answer) == [101 if asks else 200]
        assert (b"Upgrade: tcp" in answer) == asks
        assert answer.endswith(b"\r\n\r\nbody={} stdin=\x00raw \r\n\r\n bytes")

    asyncio.run(main())


def test_a_client_that_half_closes_and_then_goes_is_noticed(instance):
    """Without a byte being written: an idle terminal must not be held open for nobody."""
    ends = asyncio.Event()

    async def handler(request):
        await request.body()
        stream = await request.upgrade()
        assert await stream.read() == b"typed"
        assert await stream.read() == b""
        assert not stream.closed
        ends.set()
        await stream.wait_closed()
        ends.set()

    async def main():
        path = instance.home / "s"
        async with Server(handler) as server:
            await server.start_unix(path)
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"typed")
            writer.write_eof()
            await asyncio.wait_for(ends.wait(), 5)
            ends.clear()
            writer.close()
            await asyncio.wait_for(ends.wait(), 5)
            assert not server.connections

    asyncio.run(main())


def test_output_reaches_a_client_whose_input_nobody_read():
    async def handler(request):
        stream = await request.upgrade()
        await asyncio.sleep(0.05)
        stream.write(b"exited early")
        stream.close()
        await stream.wait_closed()

    async def main():
        async with serving(handler) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + bytes(3_000_000))
            assert (await reader.read()).endswith(b"exited early")
            began = asyncio.get_running_loop().time()
            writer.close()
            await writer.wait_closed()
        assert asyncio.get_running_loop().time() - began < 1

    asyncio.run(main())


def test_an_upgrade_nobody_takes_is_an_ordinary_request():
    async def handler(request):
        return Response(200, (), await request.body())

    async def main():
        async with serving(handler) as port:
            fields = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            answer = await exchange(
                port,
                b"POST / HTTP/1.1\r\n" + fields + b"Content-Length: 3\r\n\r\nabc"
                b"POST / HTTP/1.1\r\n" + fields + b"Transfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n",
                eof=True,
            )  # fmt: skip
        assert statuses(answer) == [200, 200]
        assert answer.count(b"abc") == answer.count(b"def") == 1

    asyncio.run(main())


def test_a_unix_socket_is_private_and_stale_ones_are_replaced(instance):
    path = instance.home / "s.sock"

    async def handler(request):
        return Response(200, (), request.peer.address.encode())

    async def main():
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        async with Server(handler) as server:
            await server.start_unix(path)
            assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
            async with Client(f"unix://{path}") as client:
                assert await (await client.request("GET", "/")).read() == b"unix"
            async with Server(handler) as second:
                with pytest.raises(InUse):
                    await second.start_unix(path)
            assert path.exists()
        assert not path.exists()
        path.write_text("data")
        async with Server(handler) as server:
            with pytest.raises(InvalidInput):
                await server.start_unix(path)
        assert path.read_text() == "data"

    asyncio.run(main())


def test_closing_lets_a_request_end_and_cancels_the_late():
    started = asyncio.Event()

    async def handler(request):
        started.set()
        await asyncio.sleep(0.1 if request.path == "/quick" else 60)
        return Response(200)

    async def main():
        for path, expected in (("/quick", [200]), ("/late", [])):
            started.clear()
            server = Server(handler)
            port = await server.start_tcp("127.0.0.1", 0)
            idle = asyncio.create_task(exchange(port, b""))
            busy = asyncio.create_task(exchange(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))
            await started.wait()
            await server.close(grace=0.3)
            assert await idle == b""
            assert statuses(await busy) == expected
            with pytest.raises(ConnectionRefusedError):
                await exchange(port, b"")

    asyncio.run(main())


def test_a_port_in_use_is_named():
    async def main():
        async with serving(None) as port, Server(None) as second:
            with pytest.raises(InUse, match=str(port)):
                await second.start_tcp("127.0.0.1", port)

    asyncio.run(main())


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_uploads_and_downloads():
    async def handler(request):
        async def back():
            async for piece in request.chunks():
                yield piece[::-1]

        return Response(200, (), back())

    async def main():
        data = os.urandom(1_000_000)
        async with serving(handler, limits=Limits(linger=0.1)) as port:
            for option in ([], ["-H", "Transfer-Encoding: chunked"], ["--http1.0"]):
                process = await asyncio.create_subprocess_exec(
                    "curl",
                    "-sS",
                    "--data-binary",
                    "@-",
                    *option,
                    f"http://127.0.0.1:{port}/",
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
                out, _ = await process.communicate(data)
                assert sorted(out) == sorted(data), option

    asyncio.run(main())


@pytest.mark.skipif(not shutil.which("docker"), reason="the docker CLI is not installed")
def test_docker_exec_carries_stdin_to_its_end_and_the_exit_code(instance):
    text = b"some line\n" * 50_000

    async def ping(request):
        return Response(200, (("Api-Version", "1.43"), ("Docker-Experimental", "false")), b"OK")

    async def create(request, id):  # noqa: A002
        return json_response({"Id": "e1"}, 201)

    async def start(request, id):  # noqa: A002
        await request.body()
        stream = await request.upgrade((("Content-Type", "application/vnd.docker.multiplexed-stream"),))
        while data := await stream.read():
            stream.write(b"\x01\0\0\0" + len(data).to_bytes(4, "big") + data.upper())
            await stream.drain()

    async def inspect(request, id):  # noqa: A002
        return json_response({"ID": id, "Running": False, "ExitCode": 9})

    async def main():
        router = Router()
        for prefix in ("", "/v1.43"):
            router.add("GET", f"{prefix}/_ping", ping)
            router.add("POST", f"{prefix}/containers/{{id}}/exec", create)
            router.add("GET", f"{prefix}/containers/{{id}}/json", inspect)
            router.add("POST", f"{prefix}/exec/{{id}}/start", start)
            router.add("GET", f"{prefix}/exec/{{id}}/json", inspect)
        async with Server(router) as server:
            path = instance.home / "d.sock"
            await server.start_unix(path)
            process = await asyncio.create_subprocess_exec(
                "docker", "-H", f"unix://{path}", "exec", "-i", "c", "cat",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PATH": os.environ["PATH"], "HOME": str(instance.home)},
            )  # fmt: skip
            out, _ = await asyncio.wait_for(process.communicate(text), 20)
            assert out == text.upper()
            assert process.returncode == 9

    asyncio.run(main())


def test_an_answered_request_leaves_nothing_to_the_garbage_collector():
    seen = []

    class Watched(Headers):
        """One that can be referred to weakly."""

    async def handler(request):
        await request.body()
        held = Watched()
        request.headers = held
        seen.append(weakref.ref(held))
        return Response(200, (), b"ok")

    async def main():
        async with serving(handler) as port, Client(f"http://127.0.0.1:{port}") as client:
            for _ in range(2):
                response = await client.request("POST", "/", (), b"ab")
                assert await response.read() == b"ok"
            return [reference() for reference in seen]

    gc.disable()
    try:
        assert asyncio.run(main()) == [None, None]
    finally:
        gc.enable()
