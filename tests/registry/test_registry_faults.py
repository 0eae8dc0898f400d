"""What goes wrong between a client and a disk: broken transfers, crashes, races, a full disk. Afterwards the registry is sound."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atoll.registry import check
from registry_harness import AtollRegistry, digest_of, random_bytes

MB = 1 << 20


def begin(registry: AtollRegistry, repo: str = "a") -> str:
    return registry.ask("POST", f"/v2/{repo}/blobs/uploads/").headers["Location"]


def half_sent(registry: AtollRegistry, method: str, target: str, data: bytes, promised: int) -> socket.socket:
    """A request whose body stops before its end; the connection is open."""
    connection = socket.create_connection(("127.0.0.1", registry.port), 10)
    connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {promised}\r\n\r\n".encode() + data)
    return connection


def offset(registry: AtollRegistry, place: str) -> int:
    return int(registry.ask("GET", place).headers["Range"].partition("-")[2]) + 1


def until(truth, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


# broken transfers --------------------------------------------------------------------------------------------------------------------
def test_broken_chunk_goes_on_where_it_broke(own_registry: AtollRegistry):
    data = random_bytes(3 * MB)
    place = begin(own_registry)
    half_sent(own_registry, "PATCH", place, data[: 2 * MB], len(data)).close()
    until(lambda: offset(own_registry, place) == 2 * MB)
    until(lambda: own_registry.ask("PATCH", place, b"", {"Content-Range": f"0-{MB}"}).status == 416)  # and not 409: nobody writes
    rest = {"Content-Range": f"{2 * MB}-{len(data) - 1}"}
    assert own_registry.ask("PUT", f"{place}?digest={digest_of(data)}", data[2 * MB :], rest).status == 201
    assert own_registry.ask("GET", f"/v2/a/blobs/{digest_of(data)}").body == data
    assert check(own_registry.root) == []


def test_broken_put_has_no_effect(own_registry: AtollRegistry):
    data = random_bytes(3 * MB)
    place = begin(own_registry)
    half_sent(own_registry, "PUT", f"{place}?digest={digest_of(data)}", data[: 2 * MB], len(data)).close()
    until(lambda: "Range" in own_registry.ask("GET", place).headers)
    until(lambda: own_registry.ask("PUT", f"{place}?digest={digest_of(data)}", data).status == 201)
    assert own_registry.ask("GET", f"/v2/a/blobs/{digest_of(data)}").body == data


def test_broken_post_leaves_nothing(own_registry: AtollRegistry):
    half_sent(own_registry, "POST", f"/v2/a/blobs/uploads/?digest={digest_of(b'x')}", b"some", 100).close()
    until(lambda: not list((own_registry.root / "uploads").iterdir()))


def test_one_writer_a_session(own_registry: AtollRegistry):
    place = begin(own_registry)
    with half_sent(own_registry, "PATCH", place, b"x" * MB, 2 * MB) as first:
        until(lambda: offset(own_registry, place) > 0)
        for method, target in (("PATCH", place), ("PUT", f"{place}?digest={digest_of(b'y')}"), ("DELETE", place)):
            answer = own_registry.ask(method, target, b"y")
            assert (answer.status, answer.code) == (409, "BLOB_UPLOAD_INVALID")
        first.sendall(b"x" * MB)
        assert first.recv(100).startswith(b"HTTP/1.1 202")
    assert offset(own_registry, place) == 2 * MB


# crashes -----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_upload_survives_a_crash(own_registry: AtollRegistry, algorithm: str):
    data = random_bytes(3 * MB)
    place = begin(own_registry)
    assert own_registry.ask("PATCH", place, data[:MB]).status == 202
    own_registry.kill()
    own_registry.start()
    assert own_registry.ask("GET", place.replace("/a/", "/b/")).code == "BLOB_UPLOAD_UNKNOWN"
    assert offset(own_registry, place) == MB
    digest = digest_of(data, algorithm)
    assert own_registry.ask("PUT", f"{place}?digest={digest}", data[MB:]).status == 201
    assert own_registry.ask("GET", f"/v2/a/blobs/{digest}").body == data


def test_acknowledged_pushes_survive_crashes(own_registry: AtollRegistry):
    acknowledged: dict[str, str] = {}

    def push(worker: int, stop: threading.Event) -> None:
        number = 0
        while not stop.is_set():
            tag = f"w{worker}-{len(acknowledged)}-{number}"
            number += 1
            try:
                acknowledged[tag] = own_registry.push_image("crash", tag, random_bytes(200_000), config=random_bytes(200))
            except (OSError, http.client.HTTPException, AssertionError):
                stop.wait(0.05)

    for _ in range(3):
        stop = threading.Event()
        with ThreadPoolExecutor(3) as pool:
            working = [pool.submit(push, worker, stop) for worker in range(3)]
            time.sleep(0.5)
            own_registry.kill()
            stop.set()
        for one in working:
            one.result()
        own_registry.start()
    assert len(acknowledged) > 5
    for tag, digest in acknowledged.items():
        answer = own_registry.ask("GET", f"/v2/crash/manifests/{tag}")
        assert answer.headers["Docker-Content-Digest"] == digest
        layer = json.loads(answer.body)["layers"][0]["digest"]
        assert digest_of(own_registry.ask("GET", f"/v2/crash/blobs/{layer}").body) == layer
    assert check(own_registry.root) == []


def test_blob_the_disk_lost_is_unknown_until_it_is_pushed_again(own_registry: AtollRegistry):
    data = random_bytes(1000)
    digest = own_registry.push_blob("a", data)
    file = own_registry.root / "blobs" / "sha256" / digest.partition(":")[2]
    file.write_bytes(data[:500])
    assert own_registry.ask("HEAD", f"/v2/a/blobs/{digest}").status == 404
    assert own_registry.ask("POST", f"/v2/b/blobs/uploads/?mount={digest}&from=a").status == 202
    assert check(own_registry.root) == [f"blob {digest} has 500 bytes on disk where it had 1000"]
    file.write_bytes(b"x" * 1000)
    assert check(own_registry.root) == [f"blob {digest} is not what its digest says"]
    own_registry.push_blob("a", data)
    assert own_registry.ask("GET", f"/v2/a/blobs/{digest}").body == data
    assert check(own_registry.root) == []


# races -------------------------------------------------------------------------------------------------------------------------------
def test_same_blob_from_eight_clients(own_registry: AtollRegistry):
    data = random_bytes(2 * MB)
    digest = digest_of(data)
    places = [begin(own_registry, f"r{number % 3}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda place: own_registry.ask("PUT", f"{place}?digest={digest}", data), places))
    assert [answer.status for answer in answers] == [201] * 8
    assert len(list((own_registry.root / "blobs" / "sha256").iterdir())) == 1
    assert not list((own_registry.root / "uploads").iterdir())
    assert check(own_registry.root) == []


def test_same_tag_from_eight_clients(own_registry: AtollRegistry):
    images = [own_registry.image("a", config=random_bytes(50)) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda image: own_registry.push_manifest("a", "latest", image), images))
    assert [answer.status for answer in answers] == [201] * 8
    final = own_registry.ask("GET", "/v2/a/manifests/latest").headers["Docker-Content-Digest"]
    assert final in {answer.headers["Docker-Content-Digest"] for answer in answers}


def test_push_and_delete_of_one_blob(own_registry: AtollRegistry):
    """Whoever is last, what the registry says it has it gives."""
    data = random_bytes(100_000)
    digest = digest_of(data)

    def push(number: int) -> int:
        return own_registry.ask("POST", f"/v2/r{number % 2}/blobs/uploads/?digest={digest}", data).status

    def delete(number: int) -> int:
        return own_registry.ask("DELETE", f"/v2/r{number % 2}/blobs/{digest}").status

    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit((push, delete)[number % 2], number // 2) for number in range(60)]
    assert {one.result() for one in work} <= {201, 202, 404}
    for repo in ("r0", "r1"):
        if own_registry.ask("HEAD", f"/v2/{repo}/blobs/{digest}").status == 200:
            assert own_registry.ask("GET", f"/v2/{repo}/blobs/{digest}").body == data
    assert check(own_registry.root) == []


def test_delete_while_it_is_pulled(own_registry: AtollRegistry):
    data = random_bytes(30 * MB)
    digest = own_registry.push_blob("a", data)
    with socket.create_connection(("127.0.0.1", own_registry.port), 10) as connection:
        connection.sendall(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        seen = connection.recv(1000)
        assert own_registry.ask("DELETE", f"/v2/a/blobs/{digest}").status == 202
        assert own_registry.ask("GET", f"/v2/a/blobs/{digest}").status == 404
        pieces = [seen]
        while piece := connection.recv(MB):
            pieces.append(piece)
    assert b"".join(pieces).partition(b"\r\n\r\n")[2] == data


# limits ------------------------------------------------------------------------------------------------------------------------------
def peak_memory(registry: AtollRegistry) -> int:
    assert registry.process is not None
    status = Path(f"/proc/{registry.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def test_memory_does_not_grow_with_the_blob(own_registry: AtollRegistry):
    own_registry.push_image("warm", "up", b"x")
    before = peak_memory(own_registry)
    data = os.urandom(MB)

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield data

    place = begin(own_registry)
    assert own_registry.ask("PATCH", place, pieces(), {"Transfer-Encoding": "chunked"}, encode_chunked=True).status == 202
    digest = digest_of(data * 100)
    assert own_registry.ask("PUT", f"{place}?digest={digest}", b"").status == 201
    with socket.create_connection(("127.0.0.1", own_registry.port), 10) as slow:
        slow.sendall(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        slow.recv(1)
        assert own_registry.ask("GET", f"/v2/a/blobs/{digest}", headers={"Range": "bytes=-10"}).status == 206
    assert peak_memory(own_registry) - before < 24 * MB


def test_largest_blob(tmp_path: Path):
    registry = AtollRegistry(tmp_path, "--max-blob", "1m")
    try:
        registry.push_blob("a", b"x" * MB)
        for body in (b"x" * (MB + 1), iter([b"x" * MB, b"x"])):
            answer = registry.ask("PATCH", begin(registry), body, {}, encode_chunked=not isinstance(body, bytes))
            assert (answer.status, answer.code) == (413, "SIZE_INVALID")
    finally:
        registry.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_full_disk(tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], check=True)
    try:
        registry = AtollRegistry(small)
        try:
            kept = registry.push_image("a", "kept", random_bytes(MB))
            data = random_bytes(8 * MB)
            place = begin(registry)
            for method, target in (
                ("PUT", f"{place}?digest={digest_of(data)}"),
                ("POST", f"/v2/a/blobs/uploads/?digest={digest_of(data)}"),
            ):
                answer = registry.ask(method, target, data)
                assert (answer.status, answer.code) == (507, "UNKNOWN")
                assert "disk is full" in answer.json["errors"][0]["message"]
            assert not list((registry.root / "uploads").iterdir())  # the room is given back
            (small / "ballast").write_bytes(b"x" * (os.statvfs(small).f_bavail * 4096))
            answer = registry.push_manifest("a", "t", registry.ask("GET", f"/v2/a/manifests/{kept}").body)
            assert answer.status in (201, 507)  # SQLite may have room in its log
            (small / "ballast").unlink()
            registry.push_image("a", "after", random_bytes(MB))
            assert registry.ask("GET", "/v2/a/manifests/kept").headers["Docker-Content-Digest"] == kept
            assert check(registry.root) == []
        finally:
            registry.stop()
    finally:
        subprocess.run(["umount", small], check=True)


def test_second_server_on_one_root(own_registry: AtollRegistry):
    import sys

    command = [sys.executable, "-m", "atoll", "registry", "serve", "--addr", "127.0.0.1:0", "--root", str(own_registry.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "another registry holds" in done.stderr
