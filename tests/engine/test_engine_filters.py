"""Every filter of lists and prunes, as docker-py sends them; readers that stand still; attaching by websocket."""

import socket
import time

import docker
import pytest
import wsproto
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Request


@pytest.fixture
def kept(client, engine):
    """Two networks, two volumes and two images, one of each in use."""
    client.networks.create("used", labels={"colour": "blue"})
    client.networks.create("idle", labels={"colour": "red"}, internal=True)
    client.volumes.create("used", labels={"colour": "blue"})
    client.volumes.create("idle", labels={"colour": "red"})
    engine.docker("build", "-q", "-t", "made:blue", "-", input="FROM busybox\nLABEL colour=blue\n")
    engine.docker("build", "-q", "-t", "made:red", "-", input="FROM busybox\nLABEL colour=red\nRUN true > /x\n")
    client.containers.run("made:blue", "sleep 600", detach=True, network="used", volumes=["used:/v"], init=True)
    yield client.api
    for container in client.containers.list(all=True):
        container.remove(force=True)
    for name in ("used", "idle"):
        engine.docker("network", "rm", name, check=False)
        engine.docker("volume", "rm", name, check=False)
    engine.docker("rmi", "made:blue", "made:red", check=False)


def wrong(call):
    with pytest.raises(docker.errors.APIError) as error:
        call()
    assert error.value.status_code == 400
    return error.value.explanation


def test_networks(kept):
    def names(**filters):
        return {row["Name"] for row in kept.networks(filters=filters)}

    predefined = {"bridge", "host", "none"}
    assert names() == predefined | {"used", "idle"}
    assert names(dangling=True) == {"idle"}
    assert names(dangling=False) == predefined | {"used"}
    assert names(driver="bridge") == {"bridge", "used", "idle"}
    assert names(driver="null") == {"none"}
    assert names(label="colour") == {"used", "idle"}
    assert names(label="colour=red") == {"idle"}
    assert names(name="us") == {"used"}
    assert names(type="builtin") == predefined
    assert names(type="custom", scope="local") == {"used", "idle"}
    assert names(id=kept.inspect_network("idle")["Id"][:9]) == {"idle"}
    assert wrong(lambda: names(bogus="1")) == "invalid filter 'bogus'"


def test_volumes(kept):
    def names(**filters):
        return {row["Name"] for row in kept.volumes(filters=filters)["Volumes"]}

    assert names() == {"used", "idle"}
    assert names(dangling=True) == {"idle"}
    assert names(dangling="false") == {"used"}
    assert names(driver="local", label="colour=blue") == {"used"}
    assert names(name="dl") == {"idle"}
    assert wrong(lambda: names(bogus="1")) == "invalid filter 'bogus'"


def test_images(kept):
    def names(**filters):
        return {name for row in kept.images(filters=filters) for name in row["RepoTags"]}

    everything = names()
    assert {"busybox:latest", "made:blue", "made:red"} <= everything
    assert names(label="colour") == names(reference="made") == names(since="busybox:latest") == {"made:blue", "made:red"}
    assert names(label="colour=red") == names(reference="made:r*") == {"made:red"}
    assert "made:red" not in names(before="made:red")
    assert names(dangling=True) == set()
    assert names(until="24h") == set()
    assert wrong(lambda: names(bogus="1")) == "invalid filter 'bogus'"


def test_prunes(kept):
    def network(**filters):
        return kept.prune_networks(filters)["NetworksDeleted"]

    assert network(**{"label!": ["colour"]}) == network(label=["colour=green"]) == network(until="24h") == []
    assert network(label=["colour=red"]) == ["idle"]

    def volume(**filters):
        return kept.prune_volumes(filters)["VolumesDeleted"]

    assert volume() == []  # named ones only when all are wanted
    assert volume(**{"all": ["true"], "label!": ["colour=red"]}) == []
    assert volume(all=["true"]) == ["idle"]

    def image(**filters):
        return [row["Untagged"] for row in kept.prune_images(filters)["ImagesDeleted"] or [] if "Untagged" in row]

    assert image(dangling=True) == []
    assert image(**{"dangling": False, "label": ["colour"], "label!": ["colour=red"]}) == []
    assert image(dangling=False, label=["colour"]) == ["made:red"]

    made = [kept.create_container("busybox", "true", labels={"colour": colour})["Id"] for colour in ("red", "blue")]
    assert kept.prune_containers({"label!": ["colour"]})["ContainersDeleted"] == []
    assert kept.prune_containers({"until": "24h"})["ContainersDeleted"] == []
    assert kept.prune_containers({"label": ["colour=red"]})["ContainersDeleted"] == made[:1]
    assert kept.prune_containers({"label!": ["colour=red"]})["ContainersDeleted"] == made[1:]


def connect(engine, head):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(str(engine.instance.engine_socket))
    sock.sendall(head.encode())
    return sock


def is_done(container):
    end = time.monotonic() + 5
    while b"done" not in container.logs(stdout=False):
        assert time.monotonic() < end
        time.sleep(0.02)
    return True


def test_readers_that_stand_still_or_go(engine, client):
    loud = ["sh", "-c", "head -c 5000000 /dev/zero; echo done >&2; sleep 600"]
    container = client.containers.create("busybox", loud, init=True)
    attach = f"POST /containers/{container.id}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    attached = connect(engine, attach)
    assert attached.recv(12) == b"HTTP/1.1 101"
    container.start()
    followers = [connect(engine, f"GET /containers/{container.id}/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(3)]
    attached.close()  # it never read: what it holds back is let go with it, and those who only follow the log hold nothing back
    assert is_done(container)
    for follower in followers:
        follower.close()


def test_attaching_by_websocket(engine, client):
    container = client.containers.run(
        "busybox", ["sh", "-c", "echo first; read line; echo got $line; exit 7"], detach=True, stdin_open=True
    )
    end = time.monotonic() + 5
    while not container.logs():
        assert time.monotonic() < end
    sock = connect(engine, "")
    talk = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    sock.sendall(talk.send(Request(host="localhost", target=f"/containers/{container.id}/attach/ws?logs=1&stream=1&stdin=1&stdout=1")))
    seen = b""
    while True:
        talk.receive_data(sock.recv(65536) or None)
        for event in talk.events():
            if isinstance(event, AcceptConnection):
                sock.sendall(talk.send(BytesMessage(b"hello\n")))
            elif isinstance(event, BytesMessage):
                seen += event.data
            elif isinstance(event, CloseConnection):
                sock.close()
                assert seen == b"first\ngot hello\n"
                assert container.wait() == {"StatusCode": 7}
                return
