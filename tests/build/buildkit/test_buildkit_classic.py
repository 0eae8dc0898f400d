"""POST /build?version=2, as the docker command of 18.09 to 20.10 built before buildx: a session, and the status in the answer's lines."""

import asyncio
import base64
import io
import json
import tarfile
from urllib.parse import urlencode

from fake_client import FakeClient

from atoll.build.buildkit import messages


def build(engine, files, body=b"", methods=(), **parameters):
    """The lines of the answer; BODY is posted a second time, as an upload."""

    async def main():
        async with asyncio.timeout(25), FakeClient(engine, files, methods) as client:
            query = {"version": "2", "session": client.id, "buildid": client.id, "remote": "client-session", **parameters}
            answer = asyncio.create_task(post(client, query, b""))
            if body:
                await post(client, {**query, "buildid": f"upload-request:{client.id}"}, body)
            return await answer

    return asyncio.run(main())


async def post(client, query, body):
    response = await client._http.request("POST", f"/build?{urlencode(query)}", body=body, timeout=20)
    text = await response.read()
    assert response.status == 200, text
    return [json.loads(line) for line in text.splitlines()]


def statuses(lines):
    return [messages.StatusResponse.FromString(base64.b64decode(line["aux"])) for line in lines if line.get("id") == "moby.buildkit.trace"]


def test_a_build_with_its_status(engine):
    files = {"Own.Dockerfile": "FROM busybox\nARG A\nCOPY f /f\nRUN echo said $A\n", "f": "content"}
    lines = build(engine, files, dockerfile="Own.Dockerfile", t="old:1", buildargs=json.dumps({"A": "x"}), labels=json.dumps({"l": "v"}))
    told = statuses(lines)
    names = [vertex.name for status in told for vertex in status.vertexes]
    assert "[3/3] RUN echo said $A" in names
    assert b"said x\n" in b"".join(log.msg for status in told for log in status.logs)
    assert lines[-1]["id"] == "moby.image.id"
    image = json.loads(engine.docker("inspect", "old:1").stdout)[0]
    assert image["Id"] == lines[-1]["aux"]["ID"]
    assert image["Config"]["Labels"] == {"l": "v"}


def test_quietly(engine):
    lines = build(engine, {"Dockerfile": "FROM busybox\nENV A=1\n"}, q="1", nocache="1")
    assert len(lines) == 1
    assert lines[0]["stream"].startswith("sha256:")


def test_an_error_comes_last(engine):
    lines = build(engine, {"Dockerfile": "FROM busybox\nRUN exit 3\n"})
    assert lines[-1]["error"] == 'process "/bin/sh -c exit 3" did not complete successfully: exit code: 3'


def test_a_context_from_standard_input(engine):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in {"Dockerfile": "FROM busybox\nCOPY f /f\n", "f": "piped"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    build(engine, {}, body=packed.getvalue(), remote="upload-request", t="old:2")
    assert engine.docker("run", "--rm", "old:2", "cat", "/f").stdout == "piped"
