"""Bad input to the builder: each a typed error in bounded time, and nothing of the host in any image. Numbers are of the list of cases."""

import contextlib
import http.client
import io
import os
import socket
import tarfile
import time

import pytest

from atoll.build.parser import parse
from atoll.build.plan import Plan
from atoll.errors import AtollError


def entry(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, io.BytesIO(data)


def tar_of(*entries):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, data in entries:
            tar.addfile(info, data)
    return buffer.getvalue()


@pytest.fixture
def post(engine):
    def send(body, query=""):
        with contextlib.closing(http.client.HTTPConnection("localhost", timeout=30)) as connection:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(engine.instance.engine_socket))
            connection.request("POST", f"/v1.44/build?{query}", body, {"Content-Type": "application/x-tar"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    return send


def test_23_a_working_directory_in_proc(build):
    for descriptor in (3, 7, 12):
        done = build(
            f"FROM busybox\nWORKDIR /proc/self/fd/{descriptor}\nRUN pwd && cat ../../../../etc/shadow; ls /proc/self/fd\n", check=False
        )
        assert "root:" not in done.stdout
    done = build("FROM busybox\nRUN ls /proc/self/fd\n")
    assert "\n0\n1\n2\n3\n" in done.stdout  # 3 is ls's own
    assert "\n4\n" not in done.stdout


def test_28_links_out_of_the_context(engine, build, tmp_path):
    os.symlink("/etc/passwd", tmp_path / "absolute")
    os.symlink("../../../../../../etc/passwd", tmp_path / "climbing")
    os.symlink("/etc", tmp_path / "dir")
    for source in ("absolute", "climbing", "dir", "dir/passwd"):
        done = build(f"FROM busybox\nCOPY {source} /copied\n", check=False)
        assert "file does not exist" in done.stderr
    build("FROM busybox\nCOPY . /all\n")
    assert engine.docker("run", "--rm", "built", "readlink", "/all/absolute").stdout == "/etc/passwd\n"
    done = build("FROM busybox\nRUN --mount=source=dir,target=/x cat /x/passwd\n", check=False)
    assert done.returncode


def test_links_out_of_a_stage(engine, build):
    build("FROM busybox AS a\nRUN ln -s /etc/shadow /s && ln -s ../../../../../etc /e\nFROM busybox\nCOPY --from=a /e /e\n")
    assert engine.docker("run", "--rm", "built", "ls", "/e").stdout.split() == ["group", "passwd"]
    done = build("FROM busybox AS a\nRUN ln -s /etc/shadow /s\nFROM busybox\nCOPY --from=a /s /s\n", check=False)
    assert "file does not exist in stage a" in done.stderr


def test_a_destination_that_leads_out(engine, build, tmp_path):
    marker = f"/tmp/atoll-hostile-{os.getpid()}"
    build(f"FROM busybox\nRUN ln -s {marker} /out && ln -s / /tmp/up\nCOPY f /out/f\nADD f /tmp/up/../../..{marker}/g\n", files={"f": "x"})
    assert not os.path.exists(marker)
    assert engine.docker("run", "--rm", "built", "ls", marker).stdout.split() == ["f", "g"]


@pytest.mark.parametrize(
    "bad",
    [
        entry("../../escaped", b"x"),
        entry("link", type=tarfile.LNKTYPE, linkname="../../etc/passwd"),
        entry("link", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        entry("null", type=tarfile.CHRTYPE),
    ],
)
def test_contexts_that_may_not_be(post, bad):
    status, text = post(tar_of(entry("Dockerfile", b"FROM busybox\n"), bad))
    assert (status, "archive entry" in text) == (400, True)


@pytest.mark.parametrize("body", [b"", b"not a tar" * 1000, b"\x1f\x8b\x08 broken", tar_of(entry("x", b"y" * 5000))[:2000]])
def test_contexts_that_are_none(post, body):
    status, text = post(body)
    assert status in (400, 404)
    assert "message" in text


@pytest.mark.parametrize(
    "query",
    [
        "buildargs=[]",
        "buildargs={",
        "labels=1",
        "memory=x",
        "t=UPPER",
        "t=a:b:c",
        "remote=ftp://x",
        "remote=/etc/passwd",
        "platform=z/y",
        "target=none",
    ],
)
def test_parameters_that_may_not_be(post, query):
    status, text = post(tar_of(entry("Dockerfile", b"FROM busybox\n")), query)
    assert status in (200, 400, 404, 501)
    assert "error" in text or "message" in text
    assert "internal error" not in text


def test_the_dockerfile_cannot_be_outside(post):
    link = entry("Dockerfile", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    assert post(tar_of(link))[0] == 404
    status, text = post(tar_of(entry("x", b"")), "dockerfile=../../../etc/passwd")
    assert (status, "root:" in text) == (404, False)


def test_27_a_large_context_with_hostile_patterns(post):
    ignore = ("**/" * 100 + "*a*a*a*a*b\n!" + "**/x" * 50 + "\n") * 20
    files = [entry(f"d{number % 50}/f{number}", b"") for number in range(3000)]
    begin = time.monotonic()
    status, _ = post(tar_of(entry("Dockerfile", b"FROM scratch\nCOPY . /\n"), entry(".dockerignore", ignore.encode()), *files))
    assert status == 200
    assert time.monotonic() - begin < 20


def test_33_a_fork_bomb_ends_at_the_limit(build):
    done = build("FROM busybox\nRUN ulimit -u 50; f() { f | f & }; f; sleep 0.5; echo survived\n", "--memory=64m", check=False)
    assert done.returncode in (0, 1, 2, 137)


@pytest.mark.parametrize(
    "text",
    [
        "ARG A=${A}\nFROM ${A}",
        "FROM a\nCOPY --from=b x /",
        "FROM a AS b\nCOPY --from=b x /",
        "FROM a\n" + "ENV A=$A$A\n" * 40,
        "FROM a AS s\n" * 10_000,
        "FROM a\nRUN <<EOF\n" + "x\n" * 10_000,
        "FROM a\nRUN " + "\\\n" * 50_000,
        "FROM a\nCMD " + "[" * 100_000,
        "FROM a\nLABEL " + "${A:-" * 10_000,
        "FROM a\nRUN --mount=" + "a," * 50_000,
    ],
)
def test_35_files_no_one_would_write(text):
    begin = time.monotonic()
    with contextlib.suppress(AtollError):
        file = parse(text.encode())
        plan = Plan(file, {})
        plan.needed(plan.target(""))
    assert time.monotonic() - begin < 1
