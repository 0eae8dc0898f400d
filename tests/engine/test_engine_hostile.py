"""Bad input and rude clients: typed answers, one winner, nothing left open."""

import concurrent.futures
import http.client
import json
import os
import random
import socket
import stat
import time

import pytest

NO_SERVER_ERROR = 500
DEEP = b"[" * 100_000


class Raw(http.client.HTTPConnection):
    """HTTP by hand, over the engine's socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


@pytest.fixture
def call(engine):
    connection = Raw(engine.instance.engine_socket)

    def call(method, path, body=None, headers=None):
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        raw = answer.read()
        return answer.status, json.loads(raw) if raw.startswith((b"{", b"[")) else raw

    yield call
    connection.close()


def test_the_socket_is_for_its_owner_alone(engine):
    assert stat.S_IMODE(os.stat(engine.instance.engine_socket).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(engine.instance.run).st_mode) == 0o700


def test_versions_and_headers(engine, call):
    connection = Raw(engine.instance.engine_socket)
    connection.request("HEAD", "/_ping")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    assert answer.headers["Api-Version"] == "1.51"
    assert answer.headers["Builder-Version"] == "2"
    assert (answer.headers["Docker-Experimental"], answer.headers["Ostype"]) == ("false", "linux")
    connection.close()
    for prefix in ("", "/v1.24", "/v1.41", "/v1.51", "/v1.55"):
        assert call("GET", f"{prefix}/version")[1]["ApiVersion"] == "1.51"
    assert call("GET", "/v1.20/version")[0] == 400
    assert call("GET", "/v9.99/version")[0] == 400
    assert call("GET", "/nonsense") == (404, {"message": "page not found"})
    assert call("PUT", "/version")[0] == 405


def test_a_web_page_is_refused(call):
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Host": "rebound.example:80"}):
        status, answer = call("POST", "/containers/create", {"Image": "busybox"}, headers)
        assert status == 403, headers
        assert "refused" in answer["message"]
    assert call("GET", "/_ping", None, {"Host": "api.moby.localhost"})[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        *(b"{", b"nonsense", b"[]", b"3", b"\xff\xfe", DEEP, b'{"Image":' + DEEP, b'{"Image":1e400}', b'{"Image":NaN}'),
        *(b'{"Image":"\\ud800"}', b'{"Image":"busybox","HostConfig":[]}', b'{"Image":"busybox","NetworkingConfig":3}'),
    ],
)
def test_bodies_that_are_no_container(call, body):
    status, answer = call("POST", "/containers/create", body)
    assert status == 400
    assert answer["message"]


def test_a_body_that_is_too_large(call):
    assert call("POST", "/containers/create", b'{"Image":"' + b"x" * (20 << 20) + b'"}')[0] == 413


JUNK = (None, 0, -1, 1e308, 1 << 70, "", "x", "\0", "é" * 50, [], [1], ["x"], {}, {"x": 1}, {"x": {"y": []}}, True)


def test_fields_of_every_wrong_type_never_break_the_engine(engine, call):
    from atoll.engine.containers.config import CONFIG, HOST

    chance = random.Random(7)
    for name in (*CONFIG, *HOST):
        for junk in JUNK:
            body = {"Image": "busybox", "Cmd": ["true"]}
            if name in CONFIG:
                body[name] = junk
            else:
                body["HostConfig"] = {name: junk}
            status, answer = call("POST", "/containers/create", body)
            assert status < NO_SERVER_ERROR or status == 501, (name, junk, answer)
            if status == 201 and chance.random() < 0.2:
                assert call("GET", f"/containers/{answer['Id']}/json")[0] == 200
                _, started = call("POST", f"/containers/{answer['Id']}/start")
                assert "internal error" not in str(started), (name, junk)  # the kernel may well refuse
            if status == 201:
                assert call("DELETE", f"/containers/{answer['Id']}?force=1&v=1")[0] == 204, (name, junk)


def test_updates_and_execs_of_every_wrong_type(engine, call):
    from atoll.engine.containers.config import RESOURCES

    name = engine.docker("create", "busybox", "true").stdout.strip()
    policies = ("RestartPolicy", *(f"RestartPolicy.{field}" for field in ("Name", "MaximumRetryCount")))
    bodies = {
        f"/containers/{name}/update": (*RESOURCES, *policies),
        f"/containers/{name}/exec": ("Cmd", "Env", "User", "WorkingDir", "Privileged", "Tty", "DetachKeys", "ConsoleSize"),
        "/networks/bridge/connect": ("Container", "EndpointConfig", "EndpointConfig.IPAMConfig"),
        "/networks/bridge/disconnect": ("Container", "Force"),
    }
    for path, fields in bodies.items():
        for field in fields:
            for junk in JUNK:
                outer, _, inner = field.partition(".")
                status, answer = call("POST", path, {"Container": name, "Cmd": ["true"], outer: {inner: junk} if inner else junk})
                assert status < NO_SERVER_ERROR or status == 501, (path, field, junk, answer)


def test_query_parameters_of_every_wrong_kind(engine, call):
    name = engine.docker("create", "--name", "target", "busybox", "true").stdout.strip()
    paths = [
        ("GET", "/containers/json?limit={}&filters={}"),
        ("GET", f"/containers/{name}/logs?stdout=1&since={{}}&until={{}}&tail={{}}"),
        ("POST", f"/containers/{name}/stop?t={{}}&signal={{}}"),
        ("POST", f"/containers/{name}/kill?signal={{}}"),
        ("POST", f"/containers/{name}/resize?w={{}}&h={{}}"),
        ("POST", f"/containers/{name}/wait?condition={{}}x"),
        ("GET", f"/containers/{name}/archive?path={{}}"),
        ("HEAD", f"/containers/{name}/archive?path={{}}"),
        ("GET", f"/containers/{name}/top?ps_args={{}}"),
        ("GET", "/events?since=0&until=1&filters={}"),
        ("GET", "/images/json?filters={}"),
        ("GET", "/images/{}/json"),
        ("GET", "/networks/{}"),
        ("GET", "/volumes/{}"),
        ("POST", "/images/create?fromImage={}&platform=%7B"),
        ("POST", "/commit?container={}"),
        ("DELETE", "/containers/{}"),
        ("POST", "/containers/create?name={}"),
    ]
    values = ("-1", "99999999999999999999", "abc", "%00", "..%2f..%2fetc", "%7B%22a%22%3A1%7D", "%ff%fe", "x" * 3000, "%5B%5B", "1e9")
    for method, path in paths:
        for value in values:
            status, answer = call(method, path.replace("{}", value), {"Image": "busybox", "Cmd": ["true"]} if "create" in path else None)
            assert status != NO_SERVER_ERROR, (method, path, value, answer)
            if status == 201 and "create" in path:
                call("DELETE", f"/containers/{answer['Id']}")


def test_a_credential_header_that_is_none(call):
    status, answer = call("POST", "/images/create?fromImage=x", None, {"X-Registry-Auth": "%%%"})
    assert (status, answer["message"].split(":")[0]) == (400, "invalid X-Registry-Auth header")


def test_of_many_with_one_name_one_wins(engine):
    def create(_):
        connection = Raw(engine.instance.engine_socket)
        try:
            connection.request("POST", "/containers/create?name=contested", json.dumps({"Image": "busybox", "Cmd": ["true"]}))
            return connection.getresponse().status
        finally:
            connection.close()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(create, range(100)))
    assert sorted(set(statuses)) == [201, 409]
    assert statuses.count(201) == 1


def test_acts_in_the_wrong_order(engine, call):
    _, made = call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["sleep", "60"]})
    path = f"/containers/{made['Id']}"
    assert call("POST", f"{path}/stop")[0] == 304
    assert call("POST", f"{path}/kill")[0] == 409
    assert call("POST", f"{path}/pause")[0] == 409
    assert call("POST", f"{path}/exec", {"Cmd": ["true"]})[0] == 409
    assert call("POST", f"{path}/start")[0] == 204
    assert call("POST", f"{path}/start")[0] == 304
    assert call("POST", f"{path}/resize?w=1&h=1")[0] == 400
    status, made_exec = call("POST", f"{path}/exec", {"Cmd": ["true"]})
    assert status == 201
    assert call("POST", f"/exec/{made_exec['Id']}/start", {"Detach": True})[0] == 200
    assert call("POST", f"/exec/{made_exec['Id']}/start", {"Detach": True})[0] == 409
    assert call("DELETE", path)[0] == 409
    assert call("DELETE", f"{path}?force=true")[0] == 204
    assert call("POST", f"{path}/start")[0] == 404
    assert call("GET", f"/exec/{made_exec['Id']}/json")[0] == 404


def test_swarm_and_plugins_answer_properly(call):
    assert call("GET", "/plugins") == (200, [])
    for path in ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/services/x", "/tasks/x/logs"):
        status, answer = call("GET", path)
        assert status == 503, path
        assert "This node is not a swarm manager" in answer["message"]
    for path in ("/swarm/init", "/plugins/pull"):
        assert call("POST", path)[0] == 501


def test_clients_that_vanish_leave_nothing_open(engine):
    name = engine.docker(
        "run", "-d", "-i", "--name", "chatty", "busybox", "sh", "-c", "while :; do echo x; sleep 0.02; done"
    ).stdout.strip()
    pid = engine.process.pid

    def open_files():
        return len(os.listdir(f"/proc/{pid}/fd"))

    engine.docker("logs", "chatty")
    before = open_files()
    requests = [
        f"POST /containers/{name}/attach?stream=1&stdout=1&stdin=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        f"GET /containers/{name}/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n",
        "GET /events HTTP/1.1\r\nHost: d\r\n\r\n",
        f"POST /containers/{name}/wait HTTP/1.1\r\nHost: d\r\n\r\n",
        f"GET /containers/{name}/stats HTTP/1.1\r\nHost: d\r\n\r\n",
    ]
    for _ in range(4):
        for text in requests:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(engine.instance.engine_socket))
                client.sendall(text.encode())
                client.recv(10)
    end = time.monotonic() + 10
    while open_files() > before:
        assert time.monotonic() < end, f"{open_files()} descriptors are open, {before} were"
        time.sleep(0.05)


def test_output_that_is_no_text_and_has_no_end(engine):
    script = "head -c 3000000 /dev/urandom; head -c 100000 /dev/zero; printf 'no newline'"
    raw = engine.docker(
        "run", "--name", "noise", "busybox", "sh", "-c", f"({script}) > /tmp/x; cat /tmp/x; md5sum < /tmp/x >&2", check=True
    )
    import hashlib
    import subprocess

    out = subprocess.run(["docker", "logs", "noise"], env=engine.environ, capture_output=True, check=True).stdout
    assert hashlib.md5(out).hexdigest() == raw.stderr.split()[0]


def test_an_idle_daemon_is_small_and_still(engine):
    pid = engine.process.pid
    time.sleep(0.5)
    before = _cpu(pid)
    time.sleep(2)
    assert _cpu(pid) - before <= 2  # hundredths of a second
    with open(f"/proc/{pid}/smaps_rollup") as file:
        pss = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    assert pss < 70_000


def _cpu(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
