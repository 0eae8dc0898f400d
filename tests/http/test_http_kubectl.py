"""The genuine kubectl against our WebSocket and SPDY/3.1: exec and port-forward, both transports."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from http_tools import serving

from atoll.http import Router, connect_tcp, json_response, spdy, splice, websocket

KUBECTL = [
    path for path in (str(Path(sys.executable).with_name("kubectl")), shutil.which("kubectl", path="/usr/bin:/usr/local/bin")) if path
]
pytestmark = pytest.mark.skipif(not KUBECTL or not Path(KUBECTL[0]).exists(), reason="kubectl is not installed")

POD = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"name": "web", "namespace": "default", "uid": "1"},
    "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
    "status": {"phase": "Running"},
}
MEGABYTES = os.urandom(3_000_000)
SUCCESS = json.dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}).encode()
EXIT_7 = json.dumps({
    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": "exit 7",
    "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
}).encode()  # fmt: skip


class Cluster:
    """As much of an API server as kubectl asks for; exec runs `rev`-like upper-casing in process, port 80 is a local server."""

    def __init__(self, backend: int = 0) -> None:
        self.backend = backend
        self.protocols: list[str | None] = []
        self.router = Router()
        add = self.router.add
        add("GET", "/api", self.api)
        add("GET", "/apis", self.apis)
        add("GET", "/api/v1", self.resources)
        add("GET", "/api/v1/namespaces/{ns}/pods/{name}", self.pod)
        add("GET", "/api/v1/namespaces/{ns}/pods/{name}/exec", self.exec_websocket)
        add("POST", "/api/v1/namespaces/{ns}/pods/{name}/exec", self.exec_spdy)
        add("GET", "/api/v1/namespaces/{ns}/pods/{name}/portforward", self.forward_websocket)
        add("POST", "/api/v1/namespaces/{ns}/pods/{name}/portforward", self.forward_spdy)

    async def api(self, request):
        return json_response({"kind": "APIVersions", "versions": ["v1"]})

    async def apis(self, request):
        return json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})

    async def resources(self, request):
        pods = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]}
        return json_response({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [pods]})

    async def pod(self, request, ns, name):
        return json_response(POD)

    async def exec_websocket(self, request, ns, name):
        socket = await websocket.accept(request, ["v5.channel.k8s.io", "v4.channel.k8s.io"])
        self.protocols.append(socket.subprotocol)
        while (message := await socket.receive()) is not None:
            if message == b"\xff\x00":  # v5: channel 0 is closed
                break
            await socket.send(b"\x01" + message[1:].upper())
        await socket.send(b"\x03" + EXIT_7)
        await socket.close()

    async def exec_spdy(self, request, ns, name):
        session, protocol = await spdy.accept(request, ["v4.channel.k8s.io"])
        self.protocols.append(protocol)
        async with session:
            streams = {}
            async for stream in session.incoming():
                streams[stream.headers.get("streamType")] = stream
                if {"error", "stdin", "stdout"} <= streams.keys():
                    break
            while data := await streams["stdin"].read():
                streams["stdout"].write(data.upper())
                await streams["stdout"].drain()
            streams["stdout"].close()
            streams["error"].write(EXIT_7)
            streams["error"].close()

    async def forward_websocket(self, request, ns, name):
        socket = await websocket.accept(request, ["SPDY/3.1+portforward.k8s.io"])
        self.protocols.append(socket.subprotocol)
        await self.forward(spdy.Session(socket.as_stream()))

    async def forward_spdy(self, request, ns, name):
        session, protocol = await spdy.accept(request, ["portforward.k8s.io"])
        self.protocols.append(protocol)
        await self.forward(session)

    async def forward(self, session):
        async with session, asyncio.TaskGroup() as group:
            async for stream in session.incoming():
                if stream.headers.get("streamType") == "data":
                    assert stream.headers.get("port") == "80"
                    group.create_task(splice(stream, await connect_tcp("127.0.0.1", self.backend)))
                else:
                    stream.close()


async def kubectl(program, port, *args, stdin=b"", **environ):
    process = await asyncio.create_subprocess_exec(
        program, "--kubeconfig=/dev/null", f"--server=http://127.0.0.1:{port}", *args,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": environ.pop("home"), **environ},
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(stdin), 30)
    return process.returncode, out, err.decode()


@pytest.mark.parametrize("program", KUBECTL)
@pytest.mark.parametrize(("websockets", "protocol"), [("true", "v5.channel.k8s.io"), ("false", "v4.channel.k8s.io")])
def test_exec_carries_stdin_stdout_and_the_exit_code(program, websockets, protocol, tmp_path):
    text = b"line of text\n" * 20_000

    async def main():
        cluster = Cluster()
        async with serving(cluster.router) as port:
            code, out, err = await kubectl(
                program, port, "exec", "-i", "web", "--", "x", stdin=text, home=str(tmp_path), KUBECTL_REMOTE_COMMAND_WEBSOCKETS=websockets
            )
        assert out == text.upper(), err
        assert code == 7, err
        assert cluster.protocols == [protocol]

    asyncio.run(main())


@pytest.mark.parametrize("program", KUBECTL)
@pytest.mark.parametrize(("websockets", "protocol"), [("true", "SPDY/3.1+portforward.k8s.io"), ("false", "portforward.k8s.io")])
def test_port_forward_carries_megabytes_both_ways(program, websockets, protocol, tmp_path):
    async def backend(reader, writer):
        size = int(await reader.readline())
        body = await reader.readexactly(size)
        writer.write(body[::-1])
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def transfer(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"%d\n" % len(MEGABYTES) + MEGABYTES)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def main():
        async with await asyncio.start_server(backend, "127.0.0.1", 0) as server:
            cluster = Cluster(server.sockets[0].getsockname()[1])
            async with serving(cluster.router) as port:
                process = await asyncio.create_subprocess_exec(
                    program, "--kubeconfig=/dev/null", f"--server=http://127.0.0.1:{port}", "port-forward", "pod/web", ":80",
                    stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                    env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECTL_PORT_FORWARD_WEBSOCKETS": websockets},
                )  # fmt: skip
                try:
                    async with asyncio.timeout(30):
                        line = (await process.stdout.readline()).decode()
                        found = re.search(r"127\.0\.0\.1:(\d+)", line)
                        assert found, line
                        answers = await asyncio.gather(*(transfer(int(found[1])) for _ in range(3)))
                finally:
                    process.terminate()
                    output, _ = await process.communicate()
                assert [answer == MEGABYTES[::-1] for answer in answers] == [True] * 3, output
                assert cluster.protocols == [protocol]

    asyncio.run(main())
