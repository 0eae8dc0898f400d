"""CPU microseconds a request: Atoll's HTTP server beside aiohttp's, where that is installed.

    python benchmarks/http_server.py [--requests 20000] [--loop asyncio|uvloop]

Each server runs in a process of its own and answers a small JSON body on a unix socket; a raw client with keep-alive sends the same request
over and over on many connections. What counts is the server's own CPU time (RUSAGE_SELF over the run), so the client's cost does not.
Then a watch: one event written to many streams, CPU a stream and event.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import multiprocessing
import os
import resource
import socket
import tempfile

REQUEST = b"GET /version HTTP/1.1\r\nHost: docker\r\nUser-Agent: bench/1.0\r\nAccept: application/json\r\n\r\n"
BODY = b'{"ApiVersion":"1.51","Version":"28.0.0","Os":"linux","Arch":"amd64"}'
CONNECTIONS = 64  # a loaded server finds several requests in each turn of its loop
STREAMS = 200
EVENT = b'{"type":"MODIFIED","object":{"kind":"Pod","metadata":{"name":"web-0"}}}' * 8 + b"\n"


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def serve_atoll(path, ready, stop):
    from atoll.http import Response, Router, Server

    async def version(_request):
        return Response(200, (("Content-Type", "application/json"),), BODY)

    router = Router()
    router.add("GET", "/version", version)
    server = Server(router)
    await server.start_unix(path)
    ready()
    await stop.wait()
    await server.close()


async def serve_aiohttp(path, ready, stop):
    from aiohttp import web

    async def version(_request):
        return web.Response(body=BODY, content_type="application/json")

    app = web.Application()
    app.router.add_get("/version", version)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    ready()
    await stop.wait()
    await runner.cleanup()


def run_server(serve, loop_name, path, ready, finish, result):
    async def main():
        stop = asyncio.Event()
        asyncio.get_running_loop().add_reader(finish, stop.set)
        started = []

        def listening():
            started.append(cpu())
            os.write(ready, b"1")

        await serve(path, listening, stop)
        result.value = cpu() - started[0]

    if loop_name == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())


def exchange(path, requests):
    sockets = []
    for _ in range(CONNECTIONS):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        sockets.append(sock)
    for _ in range(requests // CONNECTIONS):
        for sock in sockets:
            sock.send(REQUEST)
        for sock in sockets:
            assert sock.recv(65536).endswith(BODY)
    for sock in sockets:
        sock.close()


def measure(serve, loop_name, requests):
    with tempfile.TemporaryDirectory(prefix="at-") as home:
        path = home + "/s"
        ready_r, ready_w = os.pipe()
        finish_r, finish_w = os.pipe()
        result = multiprocessing.Value("d", 0.0)
        process = multiprocessing.Process(target=run_server, args=(serve, loop_name, path, ready_w, finish_r, result))
        process.start()
        os.read(ready_r, 1)
        exchange(path, requests)
        os.write(finish_w, b"1")
        process.join()
        for fd in (ready_r, ready_w, finish_r, finish_w):
            os.close(fd)
    return result.value / requests * 1e6


async def fan_out(events):
    from atoll.http import Server

    writers = []
    full = asyncio.Event()

    async def watch(request):
        writers.append(request.start(200, (("Content-Type", "application/json"),)))
        if len(writers) == STREAMS:
            full.set()
        await request.wait_disconnected()

    with tempfile.TemporaryDirectory(prefix="at-") as home:
        server = Server(watch)
        await server.start_unix(home + "/s")
        readers = []
        for _ in range(STREAMS):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(home + "/s")
            sock.send(REQUEST)
            sock.setblocking(False)
            readers.append(sock)
        await full.wait()
        total = 0.0
        for _ in range(events):
            before = cpu()
            for writer in writers:
                writer.write(EVENT)
            total += cpu() - before
            for sock in readers:
                while True:
                    try:
                        sock.recv(1 << 20)
                    except BlockingIOError:
                        break
        for sock in readers:
            sock.close()
        await server.close()
    return total / events / STREAMS * 1e6


def main():
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--requests", type=int, default=20_000)
    options.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    args = options.parse_args()
    ours = measure(serve_atoll, args.loop, args.requests)
    print(f"atoll    {ours:6.1f} us CPU a request ({args.loop})")
    if importlib.util.find_spec("aiohttp"):
        theirs = measure(serve_aiohttp, args.loop, args.requests)
        print(f"aiohttp  {theirs:6.1f} us CPU a request ({args.loop}), ratio {theirs / ours:.1f}")
    if args.loop == "uvloop":
        import uvloop

        each = uvloop.run(fan_out(50))
    else:
        each = asyncio.run(fan_out(50))
    print(f"fan-out  {each:6.1f} us CPU an event and stream ({STREAMS} streams)")


if __name__ == "__main__":
    main()
