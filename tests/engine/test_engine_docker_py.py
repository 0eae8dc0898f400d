"""docker-py, as its users write it."""

import io
import tarfile

import docker.errors
import pytest


def test_versions_and_info(client):
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.51"
    assert client.info()["OSType"] == "linux"
    assert client.plugins.list() == []


def test_containers_run(client):
    assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert (caught.value.exit_status, caught.value.stderr) == (3, b"bad\n")
    with pytest.raises(docker.errors.ImageNotFound):
        client.containers.create("nosuch/image:1")


def test_exec_run(client):
    box = client.containers.run("busybox", ["sleep", "60"], detach=True)
    assert box.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True) == (4, (b"out\n", b"err\n"))
    assert box.exec_run("nosuch").exit_code == 127
    box.reload()
    assert box.status == "running"
    box.stop(timeout=0)
    box.reload()
    assert box.status == "exited"
    with pytest.raises(docker.errors.APIError) as caught:
        box.exec_run("true")
    assert caught.value.status_code == 409


def test_logs_as_a_stream(client):
    box = client.containers.run("busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.05; done"], detach=True)
    assert list(box.logs(stream=True)) == [b"1\n", b"2\n", b"3\n"]
    assert box.wait()["StatusCode"] == 0
    assert box.logs(tail=1) == b"3\n"


def test_archives_both_ways(client):
    box = client.containers.create("busybox", ["true"])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size, entry.uid, entry.mode = 4, 1000, 0o640
        tar.addfile(entry, io.BytesIO(b"data"))
    assert box.put_archive("/tmp", buffer.getvalue())
    chunks, stat = box.get_archive("/tmp/file")
    assert (stat["name"], stat["size"], stat["mode"]) == ("file", 4, 0o640)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        member = tar.getmember("file")
        assert (member.uid, member.mode) == (1000, 0o640)
        assert tar.extractfile(member).read() == b"data"


def test_attach_socket_with_half_close(client):
    box = client.containers.create("busybox", ["cat"], stdin_open=True)
    raw = box.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    box.start()
    raw._sock.sendall(b"hello")
    raw._sock.shutdown(1)
    received = b""
    while piece := raw._sock.recv(4096):
        received += piece
    raw._sock.close()
    raw.close()
    assert received == b"\x01\0\0\0\0\0\0\x05hello"


def test_images_networks_and_volumes(client):
    image = client.images.get("busybox")
    assert image.tag("renamed", "1")
    assert "renamed:1" in client.images.get("renamed:1").tags
    client.images.remove("renamed:1")
    network = client.networks.create("py-net", driver="bridge", labels={"a": "b"})
    box = client.containers.run("busybox", ["sleep", "60"], detach=True)
    network.connect(box, aliases=["alias"])
    network.reload()
    assert [item.id for item in network.containers] == [box.id]
    network.disconnect(box)
    network.remove()
    volume = client.volumes.create("py-vol", labels={"a": "b"})
    assert client.volumes.list(filters={"label": "a=b"}) == [volume]
    volume.remove()


def test_listing_filters(client):
    box = client.containers.run("busybox", ["sleep", "60"], detach=True, name="listed", labels={"tier": "1", "x": ""})
    client.containers.create("busybox", ["true"], name="other")
    for filters in (
        {"label": "tier=1"},
        {"label": ["tier", "x"]},
        {"name": "list"},
        {"status": "running"},
        {"ancestor": "busybox"},
        {"id": box.id[:9]},
    ):
        assert [item.name for item in client.containers.list(filters=filters)] == ["listed"], filters
    assert {item.name for item in client.containers.list(all=True)} == {"listed", "other"}
    with pytest.raises(docker.errors.APIError) as caught:
        client.containers.list(filters={"nonsense": "1"})
    assert caught.value.status_code == 400


def test_top_and_stats(client):
    box = client.containers.run("busybox", ["sleep", "60"], detach=True)
    assert any("sleep" in row[-1] for row in box.top()["Processes"])
    sample = box.stats(stream=False)
    assert sample["memory_stats"]["usage"] > 0
    stream = box.stats(stream=True, decode=True)
    assert next(stream)["id"] == box.id
    stream.close()
    box.kill()
    assert box.wait()["StatusCode"] == 137


def test_swarm_is_not_there(client):
    with pytest.raises(docker.errors.APIError) as caught:
        client.services.list()
    assert caught.value.status_code == 503
    assert "This node is not a swarm manager" in str(caught.value)
