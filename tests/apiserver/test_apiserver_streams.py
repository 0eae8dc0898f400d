"""log, exec and the rest on their way to a kubelet: a TLS server that answers as one, seen through the API server."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl

import pytest
from apiserver_tools import Pki

from atoll.apiserver import InProcessClient, serve
from atoll.apiserver.bootstrap import SYSTEM
from atoll.client.resources import NODES, PODS, SERVICE_ACCOUNTS
from atoll.http import Client, Request, Response, Server


class Kubelet:
    """Remembers what it was asked; echoes what comes over an upgraded connection."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.peers: list[bytes | None] = []

    async def __call__(self, request: Request) -> Response | None:
        self.asked.append(request.target)
        self.peers.append(request.peer.certificate)
        if request.segments[0] == "containerLogs":
            if request.query.get("previous"):
                return Response(400, (), b"previous terminated container not found")

            async def lines():
                yield b"first\n"
                await asyncio.sleep(0)
                yield b"second\n"

            return Response(200, (("Content-Type", "text/plain"),), lines())
        stream = await request.upgrade([("Sec-WebSocket-Protocol", "v5.channel.k8s.io")])
        while data := await stream.read():
            stream.write(b"echo " + data)
            await stream.drain()
        return None


def run(tmp_path, scenario):
    pki = Pki(tmp_path)
    pki.issue("admin", "admin", "system:masters")
    pki.issue("apiserver", "kube-apiserver-kubelet-client", "system:masters")

    def tls(purpose, certificate):
        context = ssl.create_default_context(purpose, cafile=tmp_path / "ca.crt")
        context.load_cert_chain(tmp_path / f"{certificate}.crt", tmp_path / f"{certificate}.key")
        return context

    async def whole():
        kubelet = Kubelet()
        server_side = tls(ssl.Purpose.CLIENT_AUTH, "server")
        server_side.verify_mode = ssl.CERT_REQUIRED
        listening = Server(kubelet)
        port = await listening.start_tcp("127.0.0.1", 0, server_side)
        identity = {
            "kubelet_ca": tmp_path / "ca.crt",
            "kubelet_cert": tmp_path / "apiserver.crt",
            "kubelet_key": tmp_path / "apiserver.key",
        }
        serving = await serve(dataclasses.replace(pki.config(), **identity))
        inside = InProcessClient(serving.server)
        await inside.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, "default")
        await inside.create(NODES, {"metadata": {"name": "n"}})
        status = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}
        await inside.patch(NODES, "n", {"status": status}, subresource="status")
        for name, containers in (("p", ["c"]), ("two", ["a", "b"]), ("unbound", ["c"])):
            spec = {"containers": [{"name": c, "image": "i"} for c in containers]}
            await inside.create(PODS, {"metadata": {"name": name}, "spec": spec}, "default")
            if name != "unbound":
                binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}}
                await inside.create(PODS, binding, "default", name=name, subresource="binding")
        async with Client(f"https://127.0.0.1:{serving.port}", tls(ssl.Purpose.SERVER_AUTH, "admin")) as client:
            await scenario(client, kubelet)
        await serving.close()
        await listening.close(grace=0.2)

    asyncio.run(whole())


POD = "/api/v1/namespaces/default/pods/"


def test_logs_are_streamed_through(tmp_path):
    async def scenario(client, kubelet):
        answer = await client.request("GET", POD + "p/log?follow=true&tailLines=5")
        assert (answer.status, await answer.read()) == (200, b"first\nsecond\n")
        assert kubelet.asked == ["/containerLogs/default/p/c?follow=true&tailLines=5"]
        assert kubelet.peers[0]

    run(tmp_path, scenario)


def test_upgraded_connections_carry_bytes_both_ways(tmp_path):
    async def scenario(client, kubelet):
        headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Key", "k"), ("Sec-WebSocket-Version", "13")]
        target = POD + "p/exec?command=sh&command=-c&command=echo%20a%26b&stdin=true&stdout=true&tty=false"
        answer, stream = await client.upgrade("GET", target, headers)
        assert answer.status == 101
        assert answer.headers.get("sec-websocket-protocol") == "v5.channel.k8s.io"
        assert kubelet.asked == ["/exec/default/p/c?command=sh&command=-c&command=echo+a%26b&input=1&output=1"]
        stream.write(b"hello")
        assert await asyncio.wait_for(stream.read(), 5) == b"echo hello"
        stream.close()
        await stream.wait_closed()

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        ("two/log", 400, "a container name must be specified for pod two, choose one of: [a b]"),
        ("two/log?container=z", 400, "container z is not valid for pod two"),
        ("unbound/log", 400, "pod unbound does not have a host assigned"),
        ("p/log?previous=true", 400, "previous terminated container not found"),
        ("p/exec?command=x", 400, "Upgrade request required"),
        ("none/log", 404, "not found"),
        ("p/proxy/", 503, "pod p has no address yet"),
        ("p:x:y:z/proxy/", 400, "write [scheme:]name[:port]"),
    ],
)
def test_refusals(tmp_path, target, code, words):
    async def scenario(client, kubelet):
        answer = await client.request("GET", POD + target)
        body = (await answer.read()).decode()
        assert answer.status == code, body
        assert words in body

    run(tmp_path, scenario)


def test_a_watch_answers_at_once_and_ends_with_its_client(tmp_path):
    async def whole():
        serving = await serve(dataclasses.replace(Pki(tmp_path).config(), serving_cert=None))
        cacher = serving.server.api.core.cacher(serving.server.api.core.registry.get("", "v1", "namespaces"))
        before = len(cacher.waiters)
        reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        token = next(iter(serving.server.config.tokens))
        writer.write(f"GET /api/v1/namespaces?watch=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert b"403" in head.split(b"\r\n")[0]
        writer.close()
        await writer.wait_closed()

        def admin(_request):
            return SYSTEM

        serving.server._pipeline._authenticator.authenticate = admin
        reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        revision = serving.server.api.core.caches.revision
        writer.write(f"GET /api/v1/namespaces?watch=1&resourceVersion={revision} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2)
        assert b"200" in head.split(b"\r\n")[0]
        assert len(cacher.waiters) == before + 1
        writer.close()
        await writer.wait_closed()
        for _ in range(100):
            if len(cacher.waiters) == before:
                break
            await asyncio.sleep(0.02)
        assert len(cacher.waiters) == before
        await serving.close()

    asyncio.run(whole())
