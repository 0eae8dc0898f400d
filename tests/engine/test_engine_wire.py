"""Details of the wire that clients break on: heads of streams, frames, content types, encoded headers, what a version shows."""

from __future__ import annotations

import base64
import json
import socket
import struct
import time

import pytest

RAW, MULTIPLEXED = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"


@pytest.fixture
def get(client):
    def get(path, **headers):
        return client.api.get(f"{client.api.base_url}{path}", headers=headers, timeout=20)

    return get


def until(truth, seconds=5):
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end
        time.sleep(0.02)


def hijacked(engine, path, body=b"", *, upgrade):
    """The head of the answer, and all that follows it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(engine.instance.engine_socket))
        asked = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{asked}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        sock.shutdown(socket.SHUT_WR)  # the process's input ends; its output goes on
        data = b""
        while chunk := sock.recv(65536):
            data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode(), rest


def frame(stream, data):
    return struct.pack(">BxxxL", stream, len(data)) + data


@pytest.mark.parametrize(
    ("version", "tty", "upgrade", "status", "kind"),
    [
        ("v1.51", False, True, "101 UPGRADED", MULTIPLEXED),
        ("v1.51", False, False, "200 OK", RAW),
        ("v1.41", False, True, "101 UPGRADED", RAW),
        ("v1.51", True, True, "101 UPGRADED", RAW),
    ],
)
def test_an_exec_takes_the_connection_over(engine, client, version, tty, upgrade, status, kind):
    container = client.containers.run("busybox", "sleep 600", detach=True, init=True)
    command = ["sh", "-c", "echo out" if tty else "echo out; sleep 0.05; echo err >&2; cat"]
    made = client.api.exec_create(container.id, command, tty=tty, stdin=not tty)
    body = json.dumps({"Detach": False, "Tty": tty}).encode()
    head, rest = hijacked(engine, f"/{version}/exec/{made['Id']}/start", body, upgrade=upgrade)
    assert head.startswith(f"HTTP/1.1 {status}\r\n")
    assert f"content-type: {kind}" in head.lower()
    assert rest == (b"out\r\n" if tty else frame(1, b"out\n") + frame(2, b"err\n"))


def test_logs_say_whether_they_are_framed(client, get):
    for tty, kind, said in ((False, MULTIPLEXED, frame(1, b"x\n")), (True, RAW, b"x\r\n")):
        container = client.containers.run("busybox", "echo x", detach=True, tty=tty)
        container.wait()
        answer = get(f"/v1.51/containers/{container.id}/logs?stdout=1")
        assert (answer.headers["Content-Type"], answer.content) == (kind, said)


@pytest.mark.parametrize(
    ("accept", "kind", "begins"),
    [
        ("application/json", "application/json", b"{"),
        ("application/x-ndjson", "application/x-ndjson", b"{"),
        ("application/jsonl", "application/jsonl", b"{"),
        ("application/json-seq", "application/json-seq", b"\x1e{"),
    ],
)
def test_events_in_the_form_asked_for(client, get, accept, kind, begins):
    begun = time.time()
    client.containers.create("busybox", "true")
    answer = get(f"/v1.51/events?since={begun:.9f}&until={time.time():.9f}", Accept=accept)
    assert answer.headers["Content-Type"] == kind
    [line] = answer.content.splitlines()
    assert line.startswith(begins)
    assert json.loads(line.lstrip(b"\x1e"))["Action"] == "create"


def test_what_a_path_is_stands_in_a_header(client):
    container = client.containers.create("busybox", "true")
    url = f"{client.api.base_url}/v1.51/containers/{container.id}/archive?path=/etc/passwd"
    told = client.api.head(url).headers["X-Docker-Container-Path-Stat"]
    seen = json.loads(base64.b64decode(told, validate=True))
    assert (seen["name"], seen["mode"] & 0o777, seen["linkTarget"]) == ("passwd", 0o644, "")
    assert seen["size"] > 0
    assert seen["mtime"].endswith("Z")


@pytest.mark.parametrize("filters", [{"name": ["told"]}, {"name": {"told": True}}, {"name": {"told": True}, "status": {"created": True}}])
def test_filters_as_lists_and_as_maps(client, get, filters):
    client.containers.create("busybox", "true", name="told")
    client.containers.create("busybox", "true", name="other")
    rows = get(f"/v1.51/containers/json?all=1&filters={json.dumps(filters)}").json()
    assert [row["Names"] for row in rows] == [["/told"]]


def test_statistics_of_one_and_of_two_samples(client, get):
    container = client.containers.run("busybox", "sleep 600", detach=True)
    once = get(f"/v1.51/containers/{container.id}/stats?stream=0&one-shot=1").json()
    assert once["preread"] == "0001-01-01T00:00:00Z"
    assert once["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert once["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    twice = get(f"/v1.51/containers/{container.id}/stats?stream=0").json()
    assert twice["preread"] < twice["read"]
    assert twice["precpu_stats"]["system_cpu_usage"] < twice["cpu_stats"]["system_cpu_usage"]
    assert {"online_cpus", "throttling_data"} <= set(twice["cpu_stats"])
    assert {"usage", "limit", "stats"} <= set(twice["memory_stats"])


def test_a_healthcheck_hurries_while_it_starts(engine, client):
    healthcheck = ("--health-cmd", "true", "--health-interval", "1m", "--health-start-period", "1m", "--health-start-interval", "50ms")
    identity = engine.docker("run", "-d", *healthcheck, "busybox", "sleep", "600").stdout.strip()
    until(lambda: client.api.inspect_container(identity)["State"]["Health"]["Status"] == "healthy")
    assert client.api.inspect_container(identity)["Config"]["Healthcheck"]["StartInterval"] == 50 * 10**6


def test_the_log_of_a_healthcheck_has_five_entries(client):
    healthcheck = {"test": ["CMD-SHELL", "date +%N; exit 1"], "interval": 10**7, "retries": 2}
    container = client.containers.run("busybox", "sleep 600", detach=True, healthcheck=healthcheck)
    until(lambda: client.api.inspect_container(container.id)["State"]["Health"]["FailingStreak"] >= 7)
    health = client.api.inspect_container(container.id)["State"]["Health"]
    assert (health["Status"], len(health["Log"]), health["Log"][0]["ExitCode"]) == ("unhealthy", 5, 1)


def test_old_fields_of_the_network_go_with_their_versions(client, get):
    container = client.containers.run("busybox", "sleep 600", detach=True)
    for version, has in (("v1.44", True), ("v1.51", True), ("v1.52", False)):
        answer = get(f"/{version}/containers/{container.id}/json").json()
        assert ("IPAddress" in answer["NetworkSettings"]) is has, version


def test_published_ports_come_in_pairs(client):
    container = client.containers.run("busybox", "sleep 600", detach=True, ports={"80/tcp": None})
    first, second = client.api.inspect_container(container.id)["NetworkSettings"]["Ports"]["80/tcp"]
    assert (first["HostIp"], second["HostIp"]) == ("0.0.0.0", "::")
    assert first["HostPort"] == second["HostPort"] != "0"


@pytest.mark.parametrize("reference", ["{name}", "{id}", "{short}"])
def test_a_container_by_each_of_its_names(client, get, reference):
    container = client.containers.create("busybox", "true", name="called")
    asked = reference.format(name="called", id=container.id, short=container.id[:5])
    assert get(f"/v1.51/containers/{asked}/json").json()["Id"] == container.id


@pytest.mark.parametrize(
    "name", ["busybox", "busybox:latest", "docker.io/library/busybox", "index.docker.io/library/busybox:latest", "{id}"]
)
def test_an_image_by_each_of_its_names(client, get, name):
    identity = client.images.get("busybox").id
    assert get(f"/v1.51/images/{name.format(id=identity)}/json").json()["Id"] == identity
