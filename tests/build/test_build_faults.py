"""Builds that are cut short: by the client, by the death of the daemon, by a full disk, by each other."""

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest

from engine_harness import EngineDaemon

SLOW = "FROM busybox\nRUN echo kept > /kept\nRUN --mount=target=/all,from=busybox --mount=target=/ctx,rw echo begun && sleep 60\n"


def wait_for(what, timeout=10):
    end = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
    return found


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


class Connection(http.client.HTTPConnection):
    def __init__(self, daemon):
        super().__init__("localhost", timeout=30)
        self.path = str(daemon.instance.engine_socket)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def post(connection, dockerfile, query="t=built", files=None):
    body = tar_of({"Dockerfile": dockerfile.encode(), **(files or {})})
    connection.request("POST", f"/v1.44/build?{query}", body, {"Content-Type": "application/x-tar"})
    return connection.getresponse()


def scratch(daemon):
    """What builds have lying about: half-made layers and contexts, mounts, scripts."""
    content, mounts = daemon.instance.content / "tmp", daemon.instance.run / "build"
    return [*content.iterdir(), *(mounts.iterdir() if mounts.is_dir() else ())]


def steps(daemon):
    return daemon.docker("ps", "-aq", "--filter", "label=dev.atoll.build-step").stdout.split()


def mounts(daemon):
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{daemon.instance.home}/" in line]


def test_a_client_that_vanishes_ends_its_step(engine):
    images, mounted = engine.docker("images", "-aq").stdout, mounts(engine)
    with contextlib.closing(Connection(engine)) as connection:
        answer = post(connection, SLOW)
        while b'"begun' not in answer.readline():
            pass
        assert len(steps(engine)) == 1
        assert len(mounts(engine)) == len(mounted) + 2
        answer.close()
    wait_for(lambda: not steps(engine))
    wait_for(lambda: not scratch(engine))
    assert mounts(engine) == mounted
    assert engine.docker("images", "-aq").stdout == images
    with contextlib.closing(Connection(engine)) as connection:
        text = post(connection, SLOW.replace("sleep 60", "true")).read().decode()
    assert text.count("Using cache") == 1
    assert "Successfully built" in text


def test_a_client_that_vanishes_while_it_sends(engine):
    with contextlib.closing(Connection(engine)) as connection:
        connection.putrequest("POST", "/v1.44/build?t=built")
        connection.putheader("Content-Length", str(1 << 24))
        connection.endheaders()
        connection.send(tar_of({"Dockerfile": b"FROM busybox\n", "big": bytes(1 << 20)})[: 1 << 20])
        wait_for(lambda: scratch(engine))
    wait_for(lambda: not scratch(engine))


def test_a_killed_daemon_leaves_nothing(instance):
    daemon = EngineDaemon(instance)
    try:
        daemon.start()
        daemon.make_busybox()
        with contextlib.closing(Connection(daemon)) as connection:
            answer = post(connection, SLOW)
            while b'"begun' not in answer.readline():
                pass
            daemon.kill()
            answer.close()
        assert mounts(daemon)
        daemon.start()
        assert steps(daemon) == []
        assert scratch(daemon) == []
        assert mounts(daemon) == []
        assert len(daemon.docker("images", "-aq").stdout.split()) == 1
        with contextlib.closing(Connection(daemon)) as connection:
            text = post(connection, SLOW.replace("sleep 60", "true")).read().decode()
        assert text.count("Using cache") == 1
        assert "Successfully built" in text
    finally:
        daemon.destroy()


def test_a_step_outlives_its_keeper_and_is_still_heard(engine):
    path = engine.instance.run / "keeper.pid"
    keeper = int(path.read_text())
    connection = Connection(engine)
    lines = post(connection, "FROM busybox\nRUN echo begun; while [ ! -e /go ]; do sleep 0.02; done; echo the last\n")
    said = iter(lines.readline, b"")
    until_said(said, '"begun')  # the step's own word, not the instruction
    os.kill(keeper, signal.SIGKILL)
    assert "may be missing" in until_said(said, "the keeper was replaced")
    wait_for(lambda: int(path.read_text()) != keeper)
    (box,) = steps(engine)
    engine.docker("exec", box, "touch", "/go")
    until_said(said, '"the last')
    until_said(said, "Successfully built")
    connection.close()


def until_said(lines, words):
    return next(text for line in lines if words in (text := line.decode()))


@pytest.fixture
def small_disk(instance):
    """An instance whose home has 400 MB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m,mode=700", "tmpfs", str(instance.home)], check=True)
    daemon = EngineDaemon(instance)
    try:
        daemon.start()
        daemon.make_busybox()
        yield daemon
        daemon.destroy()
    finally:
        subprocess.run(["umount", "-l", str(instance.home)], check=True)


def test_a_full_disk(small_disk, tmp_path):
    def build(text, **files):
        (tmp_path / "Dockerfile").write_text(text)
        for name, size in files.items():
            (tmp_path / name).write_bytes(os.urandom(size))
        done = small_disk.docker("build", "-t", "built", str(tmp_path), check=False)
        for name in files:
            (tmp_path / name).unlink()
        return done

    done = build("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=500\n")
    assert "No space left on device" in done.stdout + done.stderr
    assert "returned a non-zero code: 1" in done.stderr
    done = build("FROM busybox\nCOPY big /big\n", big=300 << 20)
    assert done.returncode
    assert "no space left" in done.stderr.lower() or "more than there is room for" in done.stderr
    assert scratch(small_disk) == []
    assert "Successfully" in build("FROM busybox\nRUN echo small > /small\n").stdout
    assert small_disk.docker("run", "--rm", "built", "cat", "/small").stdout == "small\n"


def test_a_slow_reader_holds_the_step_up(engine):
    """A step that writes without end to a client that does not read: memory stays bounded."""
    with contextlib.closing(Connection(engine)) as connection:
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        post(connection, "FROM busybox\nRUN yes\n", "t=yes")
        wait_for(lambda: steps(engine))
        before = resident(engine)
        time.sleep(1.5)
        assert resident(engine) - before < 30 << 20
    wait_for(lambda: not steps(engine))


def resident(daemon):
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_builds_at_once_share_their_steps(engine):
    """Four clients, one step: it runs once, the others wait and find it."""
    answers = []

    def build(number):
        with contextlib.closing(Connection(engine)) as connection:
            text = "FROM busybox\nRUN sleep 0.3 && cat /proc/sys/kernel/random/uuid | tee /stamp\n"
            answers.append(post(connection, text, f"t=same:{number}").read().decode())

    threads = [threading.Thread(target=build, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("Running in" in answer for answer in answers) == 1
    assert sum("Using cache" in answer for answer in answers) == 3
    ids = {json.loads(line)["aux"]["ID"] for answer in answers for line in answer.splitlines() if '"aux"' in line}
    assert len(ids) == 1


def test_independent_stages_run_at_the_same_time(engine, build):
    stage = "FROM busybox AS {0}\nRUN sleep 0.7 && echo {0} > /{0}\n"
    names = ("a", "b", "c")
    begin = time.monotonic()
    done = build(
        "".join(stage.format(name) for name in names) + "FROM busybox\n" + "".join(f"COPY --from={name} /{name} /\n" for name in names)
    )
    assert time.monotonic() - begin < 1.8
    told = [line for line in done.stdout.splitlines() if line.startswith("Step ")]
    assert [line.split()[1] for line in told] == [f"{number}/10" for number in range(1, 11)]


def test_a_failing_stage_ends_the_others(engine, build):
    begin = time.monotonic()
    done = build(
        "FROM busybox AS slow\nRUN sleep 30\nFROM busybox AS bad\nRUN echo why && exit 4\n"
        "FROM busybox\nCOPY --from=slow / /s\nCOPY --from=bad / /b\n",
        check=False,
    )
    assert time.monotonic() - begin < 10
    assert "returned a non-zero code: 4" in done.stderr
    assert "\nwhy\n" in done.stdout
    assert steps(engine) == []


def test_a_step_under_a_memory_limit(build):
    done = build("FROM busybox\nRUN tail /dev/zero\n", "--memory=32m", "--memory-swap=32m", check=False)
    assert "returned a non-zero code: 137" in done.stderr
