"""The engine on TCP: certificates on both sides, docker and atoll as clients, streams that end one direction, and whom it refuses."""

import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import time

import docker
import pytest

from atoll.engine.listening import Listening
from atoll.errors import InvalidInput
from engine_harness import ATOLL, EngineDaemon
from tls_files import Authority


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority(directory / "own")
    found = {"server": authority.sign("server", "127.0.0.1", "localhost", "*.engine.test"), "client": authority.sign("client", client=True)}
    found["stranger"] = Authority(directory / "other", "another authority").sign("client", client=True)
    return found


@pytest.fixture(scope="module")
def port(engine):
    log = engine.instance.logs / "engine.log"
    return int(re.findall(r"let in on 127\.0\.0\.1:(\d+)", log.read_text())[-1])


@pytest.fixture(scope="module")
def engine(module_instance, files):
    module_instance.home.mkdir(exist_ok=True)
    names = {f"tls{name}": files["server"] / f"{file}.pem" for name, file in (("cacert", "ca"), ("cert", "cert"), ("key", "key"))}
    lines = ['hosts = ["tcp://127.0.0.1:0"]', *(f'{key} = "{path}"' for key, path in names.items())]
    (module_instance.home / "engine.toml").write_text("\n".join(lines))
    daemon = EngineDaemon(module_instance)
    try:
        daemon.start()
        end = time.monotonic() + 10
        while "let in on" not in (module_instance.logs / "engine.log").read_text():
            assert time.monotonic() < end
            time.sleep(0.01)
        daemon.make_busybox()
        yield daemon
    finally:
        daemon.destroy()


def over(command, engine, port, directory, *words, data="", host="127.0.0.1"):
    """`docker` or `atoll` over TLS, with the certificates in DIRECTORY."""
    flags = ["-H", f"tcp://{host}:{port}", "--tlsverify"]
    flags += [
        word for name, file in (("cacert", "ca"), ("cert", "cert"), ("key", "key")) for word in (f"--tls{name}", f"{directory}/{file}.pem")
    ]
    environ = {name: value for name, value in engine.environ.items() if name != "DOCKER_HOST"}
    done = subprocess.run([command, *flags, *words], env=environ, input=data, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("command", ["docker", ATOLL])
def test_clients_with_certificates(engine, port, files, command):
    def run(*words, data=""):
        done = over(command, engine, port, files["client"], *words, data=data)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert json.loads(run("version", "--format", "{{json .Server}}"))["ApiVersion"]
    # The end of input goes one way while output still comes the other.
    assert run("run", "--rm", "-i", "busybox", "sh", "-c", "cat; sleep 0.3; echo late", data="typed\n") == "typed\nlate\n"
    big = "x" * 3_000_000
    assert run("run", "--rm", "-i", "busybox", "sh", "-c", "wc -c", data=big).strip() == "3000000"
    assert len(run("run", "--rm", "busybox", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' y")) == 3_000_000
    run("run", "-d", "--name", "far", "busybox", "sh", "-c", "echo up; sleep 600")
    assert run("exec", "-i", "far", "cat", data="again\n") == "again\n"
    assert run("logs", "far") == "up\n"
    run("rm", "-f", "far")


def test_docker_py(engine, port, files, monkeypatch):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)  # requests prefers them to what it is told
    directory = files["client"]
    tls = docker.tls.TLSConfig(client_cert=(f"{directory}/cert.pem", f"{directory}/key.pem"), ca_cert=f"{directory}/ca.pem", verify=True)
    client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{port}", tls=tls)
    try:
        assert client.ping()
        assert client.containers.run("busybox", "echo hi", remove=True) == b"hi\n"
    finally:
        client.close()


def test_who_has_no_certificate_is_refused(engine, port, files):
    done = over("docker", engine, port, files["stranger"], "ps")
    assert done.returncode == 1
    assert "tls" in done.stderr or "certificate" in done.stderr
    done = over(ATOLL, engine, port, files["stranger"], "ps")
    assert done.returncode == 1
    assert "certificate" in done.stderr.lower()
    context = ssl.create_default_context(cafile=str(files["client"] / "ca.pem"))
    raw = socket.create_connection(("127.0.0.1", port), 5)
    with context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped:  # TLS 1.3: the refusal comes with the first answer
        wrapped.sendall(b"GET /_ping HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            wrapped.recv(100)
    with socket.create_connection(("127.0.0.1", port), 5) as raw:  # in the clear
        raw.sendall(b"GET /_ping HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"HTTP" not in raw.recv(100)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "box.engine.test"}, 200),
        ({"Host": "evil.example.com"}, 403),
        ({"Host": "10.9.8.7:2376"}, 403),
        ({"Origin": "https://evil.example.com"}, 403),
    ],
)
def test_pages_of_the_web_are_refused(engine, port, files, headers, status):
    context = ssl.create_default_context(cafile=str(files["client"] / "ca.pem"))
    context.load_cert_chain(files["client"] / "cert.pem", files["client"] / "key.pem")
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=5)
    try:
        connection.request("GET", "/_ping", headers=headers)
        assert connection.getresponse().status == status
    finally:
        connection.close()


def test_contexts(engine, port, files, tmp_path):
    environ = {**os.environ, "ATOLL_HOME": str(tmp_path / "h"), "DOCKER_CONFIG": str(tmp_path / "config")}
    environ = {name: value for name, value in environ.items() if name not in ("DOCKER_HOST", "DOCKER_CONTEXT")}

    def run(command, *words, check=True):
        done = subprocess.run([command, *words], env=environ, capture_output=True, text=True, timeout=30, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        assert not check or done.returncode == 0, done.stderr
        return done

    directory = files["client"]
    endpoint = f"host=tcp://127.0.0.1:{port},ca={directory}/ca.pem,cert={directory}/cert.pem,key={directory}/key.pem"
    assert run(ATOLL, "context", "create", "far", "--description", "over there", "--docker", endpoint).stdout == "far\n"
    # What atoll writes docker reads, and the other way round.
    assert run("docker", "--context", "far", "run", "--rm", "busybox", "echo", "hi").stdout == "hi\n"
    run("docker", "context", "create", "too", "--docker", endpoint)
    assert run(ATOLL, "-c", "too", "run", "--rm", "busybox", "echo", "hi").stdout == "hi\n"
    assert json.loads(run(ATOLL, "context", "inspect", "far").stdout)[0] == json.loads(run("docker", "context", "inspect", "far").stdout)[0]
    assert run(ATOLL, "context", "show").stdout == "default\n"
    assert run(ATOLL, "context", "use", "far").stdout == "far\n"
    assert run("docker", "context", "show").stdout == "default\n"  # its own choice
    assert run(ATOLL, "info", "--format", "{{.DockerRootDir}}").stdout.strip() == str(engine.instance.home)
    rows = run(ATOLL, "context", "ls").stdout.splitlines()
    assert rows[0].split("   ")[0] == "NAME"
    assert [row.split("  ")[0].strip() for row in rows[1:]] == ["default", "far *", "too"]
    assert run(ATOLL, "context", "ls", "-q").stdout == "default\nfar\ntoo\n"
    run(ATOLL, "context", "export", "far", str(tmp_path / "far.tar"))
    run(ATOLL, "context", "import", "copy", str(tmp_path / "far.tar"))
    assert run("docker", "--context", "copy", "version", "--format", "{{.Server.Version}}").stdout.strip()
    run(ATOLL, "context", "update", "copy", "--description", "a copy")
    assert json.loads(run(ATOLL, "context", "inspect", "copy").stdout)[0]["Metadata"] == {"Description": "a copy"}
    assert "is in use" in run(ATOLL, "context", "rm", "far", check=False).stderr
    assert run(ATOLL, "context", "rm", "-f", "far", "too", "copy").stdout == "far\ntoo\ncopy\n"
    assert run(ATOLL, "context", "show").stdout == "default\n"
    assert run(ATOLL, "context", "use", "nosuch", check=False).returncode == 1
    for name in ("default", "bad/name", "x"):
        assert run(ATOLL, "context", "create", name, check=False).returncode == 1


@pytest.mark.parametrize(
    ("hosts", "files", "message"),
    [
        (["tcp://0.0.0.0:2375"], (None, None, None), "certificates on both sides"),
        (["tcp://0.0.0.0:2375"], ("ca", "cert", None), "certificates on both sides"),
        (["tcp://0.0.0.0:99999"], ("ca", "cert", "key"), "cannot listen on"),
        (["http://x"], (None, None, None), "cannot listen on"),
        (["unix://relative"], (None, None, None), "cannot listen on"),
    ],
)
def test_where_it_cannot_listen(hosts, files, message):
    with pytest.raises(InvalidInput, match=message):
        Listening.of(hosts, *files)


def test_where_it_can():
    found = Listening.of(["tcp://127.0.0.1", "tcp://[::1]:99", "unix:///run/x.sock"], "ca", "cert", "key")
    assert found.addresses == (("127.0.0.1", 2376), ("::1", 99))
    assert found.sockets == ("/run/x.sock",)


def test_files_that_are_wrong_are_named(files, tmp_path):
    (tmp_path / "bad.pem").write_text("not a certificate")
    server = files["server"]
    with pytest.raises(InvalidInput, match=r"--tlscacert .*bad\.pem"):
        Listening.of(["tcp://x:1"], f"{tmp_path}/bad.pem", f"{server}/cert.pem", f"{server}/key.pem").context()
    with pytest.raises(InvalidInput, match=r"--tlscert .*none\.pem"):
        Listening.of(["tcp://x:1"], f"{server}/ca.pem", f"{tmp_path}/none.pem", f"{server}/key.pem").context()


def test_engine_start_refuses_the_clear(tmp_path):
    environ = {**os.environ, "ATOLL_HOME": str(tmp_path)}
    for words in (["-H", "tcp://127.0.0.1:1"], ["--tls"]):
        done = subprocess.run([ATOLL, "engine", "start", *words], env=environ, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 1
        assert "--tls" in done.stderr
