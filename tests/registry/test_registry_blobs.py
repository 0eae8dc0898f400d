"""Blobs, as the conformance program of distribution-spec goes through them: every way in, every way out, sha256 and sha512."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from registry_harness import Answer, AtollRegistry, digest_of, random_bytes

CHUNK = 1000
_numbers = itertools.count()
algorithms = pytest.mark.parametrize("algorithm", ["sha256", "sha512"])


@pytest.fixture
def repo() -> str:
    return f"conformance/blobs{next(_numbers)}"


def begin(registry: AtollRegistry, repo: str) -> str:
    answer = registry.ask("POST", f"/v2/{repo}/blobs/uploads/", headers={"Content-Length": "0"})
    assert answer.status == 202
    assert answer.headers["Range"] == "0-0"
    return answer.headers["Location"]


def stored(registry: AtollRegistry, answer: Answer, repo: str, data: bytes, digest: str) -> None:
    assert answer.status == 201, answer
    assert answer.headers["Docker-Content-Digest"] == digest
    assert registry.ask("GET", answer.headers["Location"]).body == data
    head = registry.ask("HEAD", f"/v2/{repo}/blobs/{digest}")
    assert (head.status, head.headers["Content-Length"], head.headers["Docker-Content-Digest"]) == (200, str(len(data)), digest)


def chunk(registry: AtollRegistry, method: str, place: str, data: bytes, start: int) -> Answer:
    span = {"Content-Range": f"{start}-{start + len(data) - 1}", "Content-Type": "application/octet-stream"}
    return registry.ask(method, place, data, span)


def test_base(registry: AtollRegistry):
    answer = registry.ask("GET", "/v2/")
    assert (answer.status, answer.json) == (200, {})
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_missing_blob(registry: AtollRegistry, repo: str):
    answer = registry.ask("GET", f"/v2/{repo}/blobs/{digest_of(b'nowhere')}")
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")
    assert answer.headers["Content-Type"] == "application/json"
    assert registry.ask("HEAD", f"/v2/{repo}/blobs/{digest_of(b'nowhere')}").status == 404


@algorithms
@pytest.mark.parametrize("data", [random_bytes(), b"", b"{}", random_bytes(3_000_000)], ids=["small", "empty", "json", "large"])
def test_post_alone(registry: AtollRegistry, repo: str, data: bytes, algorithm: str):
    digest = digest_of(data, algorithm)
    stored(registry, registry.ask("POST", f"/v2/{repo}/blobs/uploads/?digest={digest}", data), repo, data, digest)


@algorithms
@pytest.mark.parametrize("data", [random_bytes(), b"", random_bytes(3_000_000)], ids=["small", "empty", "large"])
def test_post_then_put(registry: AtollRegistry, repo: str, data: bytes, algorithm: str):
    digest = digest_of(data, algorithm)
    stored(registry, registry.ask("PUT", f"{begin(registry, repo)}?digest={digest}", data), repo, data, digest)


@algorithms
@pytest.mark.parametrize("last_by_put", [False, True])
def test_chunks(registry: AtollRegistry, repo: str, algorithm: str, last_by_put: bool):
    data = random_bytes(CHUNK * 3 - 5)
    digest = digest_of(data, algorithm)
    place = begin(registry, repo)
    for start in range(0, len(data), CHUNK):
        piece = data[start : start + CHUNK]
        if last_by_put and start + CHUNK >= len(data):
            stored(registry, chunk(registry, "PUT", f"{place}?digest={digest}", piece, start), repo, data, digest)
            return
        answer = chunk(registry, "PATCH", place, piece, start)
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{start + len(piece) - 1}")
        place = answer.headers["Location"]
    stored(registry, registry.ask("PUT", f"{place}?digest={digest}", b""), repo, data, digest)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_chunk_out_of_order_is_refused_and_the_session_goes_on(registry: AtollRegistry, repo: str, method: str):
    data = random_bytes(CHUNK * 2)
    digest = digest_of(data)
    place = begin(registry, repo)
    suffix = f"?digest={digest}" if method == "PUT" else ""
    for start, expected in ((0, "0-0"), (CHUNK, f"0-{CHUNK - 1}")):
        for wrong in {0, CHUNK, 5 * CHUNK} - {start}:
            answer = chunk(registry, method, place + suffix, data[:CHUNK], wrong)
            assert (answer.status, answer.code, answer.headers["Range"]) == (416, "BLOB_UPLOAD_INVALID", expected)
        status = registry.ask("GET", place)
        assert (status.status, status.headers["Range"]) == (204, expected)
        assert chunk(registry, "PATCH", place, data[start : start + CHUNK], start).status == 202
    stored(registry, registry.ask("PUT", f"{place}?digest={digest}", b""), repo, data, digest)


@pytest.mark.parametrize("span", ["5", "bytes", "9-3", "0-99999999999999999999999", "-1-5", "a-b", ""])
def test_content_range_that_is_none(registry: AtollRegistry, repo: str, span: str):
    answer = registry.ask("PATCH", begin(registry, repo), b"data", {"Content-Range": span})
    assert (answer.status, answer.code) == (416, "BLOB_UPLOAD_INVALID")


@pytest.mark.parametrize("span", ["0-9", "0-2"])
def test_content_range_of_another_length_than_the_body(registry: AtollRegistry, repo: str, span: str):
    place = begin(registry, repo)
    answer = registry.ask("PATCH", place, b"data", {"Content-Range": span})
    assert (answer.status, answer.code) == (400, "SIZE_INVALID")
    assert registry.ask("GET", place).headers["Range"] == "0-0"
    data = b"whole"
    stored(registry, registry.ask("PUT", f"{place}?digest={digest_of(data)}", data), repo, data, digest_of(data))


@algorithms
def test_stream_without_a_length(registry: AtollRegistry, repo: str, algorithm: str):
    data = random_bytes(2_500_000)

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(data), 33_333):
            yield data[start : start + 33_333]

    answer = registry.ask("PATCH", begin(registry, repo), pieces(), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert (answer.status, answer.headers["Range"]) == (202, f"0-{len(data) - 1}")
    digest = digest_of(data, algorithm)
    stored(registry, registry.ask("PUT", f"{answer.headers['Location']}?digest={digest}", b""), repo, data, digest)


def test_session_of_another_algorithm(registry: AtollRegistry, repo: str):
    data = random_bytes()
    answer = registry.ask("POST", f"/v2/{repo}/blobs/uploads/?digest-algorithm=sha512")
    for_sha512 = answer.headers["Location"]
    stored(registry, registry.ask("PUT", f"{for_sha512}?digest={digest_of(data, 'sha512')}", data), repo, data, digest_of(data, "sha512"))
    assert registry.ask("POST", f"/v2/{repo}/blobs/uploads/?digest-algorithm=md5").code == "DIGEST_INVALID"


@pytest.mark.parametrize("way", ["post", "put", "chunks", "stream"])
@algorithms
def test_wrong_digest_is_refused_and_nothing_stays(registry: AtollRegistry, repo: str, way: str, algorithm: str):
    data = random_bytes()
    digest = digest_of(data, algorithm)
    wrong = data + b"oh no"
    if way == "post":
        answer = registry.ask("POST", f"/v2/{repo}/blobs/uploads/?digest={digest}", wrong)
    else:
        place = begin(registry, repo)
        if way == "chunks":
            assert chunk(registry, "PATCH", place, wrong, 0).status == 202
        elif way == "stream":
            assert registry.ask("PATCH", place, wrong).status == 202
        answer = registry.ask("PUT", f"{place}?digest={digest}", wrong if way == "put" else b"")
        assert registry.ask("GET", place).code == "BLOB_UPLOAD_UNKNOWN"
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert registry.ask("HEAD", f"/v2/{repo}/blobs/{digest}").status == 404
    assert not [path for path in (registry.root / "uploads").iterdir() if path.stat().st_size == len(wrong)]


@pytest.mark.parametrize(
    "digest", ["", "sha256:abc", "sha256:" + "G" * 64, "md5:" + "a" * 32, "sha256:" + "a" * 128, "nonsense", "sha256:../../x"]
)
def test_digest_that_is_none(registry: AtollRegistry, repo: str, digest: str):
    assert registry.ask("POST", f"/v2/{repo}/blobs/uploads/?digest={digest}", b"x").code == "DIGEST_INVALID"
    place = begin(registry, repo)
    assert registry.ask("PUT", f"{place}?digest={digest}", b"x").code == "DIGEST_INVALID"
    assert registry.ask("PUT", place, b"x").code == "DIGEST_INVALID"
    if digest and "/" not in digest:
        assert registry.ask("GET", f"/v2/{repo}/blobs/{digest}").code == "DIGEST_INVALID"


def test_cancel(registry: AtollRegistry, repo: str):
    place = begin(registry, repo)
    assert registry.ask("DELETE", place).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        assert registry.ask(method, place, b"").code == "BLOB_UPLOAD_UNKNOWN"


def test_session_belongs_to_its_repository(registry: AtollRegistry, repo: str):
    place = begin(registry, repo)
    other = place.replace(repo, f"{repo}/other")
    assert registry.ask("PATCH", other, b"x").code == "BLOB_UPLOAD_UNKNOWN"
    assert registry.ask("PATCH", place, b"x").status == 202


def test_mount(registry: AtollRegistry, repo: str):
    data = random_bytes()
    digest = registry.push_blob(f"{repo}/source", data)
    stored(registry, registry.ask("POST", f"/v2/{repo}/blobs/uploads/?mount={digest}&from={repo}/source"), repo, data, digest)
    stored(registry, registry.ask("POST", f"/v2/{repo}/b/blobs/uploads/?mount={digest}"), f"{repo}/b", data, digest)
    # One copy, three links: each goes alone, the last takes the content.
    for name in (f"{repo}/source", repo, f"{repo}/b"):
        assert registry.ask("GET", f"/v2/{name}/blobs/{digest}").status == 200
        assert registry.ask("DELETE", f"/v2/{name}/blobs/{digest}").status == 202
        assert registry.ask("GET", f"/v2/{name}/blobs/{digest}").status == 404
    assert not (registry.root / "blobs" / "sha256" / digest.partition(":")[2]).exists()


@pytest.mark.parametrize("source", ["&from=conformance/nowhere", ""])
def test_mount_of_what_is_not_there_opens_a_session(registry: AtollRegistry, repo: str, source: str):
    data = random_bytes()
    digest = digest_of(data)
    answer = registry.ask("POST", f"/v2/{repo}/blobs/uploads/?mount={digest}{source}")
    assert answer.status == 202
    stored(registry, registry.ask("PUT", f"{answer.headers['Location']}?digest={digest}", data), repo, data, digest)


def test_mount_names_are_checked(registry: AtollRegistry, repo: str):
    good = digest_of(b"x")
    assert registry.ask("POST", f"/v2/{repo}/blobs/uploads/?mount={good}&from=../etc").code == "NAME_INVALID"
    assert registry.ask("POST", f"/v2/{repo}/blobs/uploads/?mount=sha256:zz&from={repo}").code == "DIGEST_INVALID"


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=500-1499", 206, 500, 1499),
        ("bytes=500-", 206, 500, 2047),
        ("bytes=-500", 206, 1548, 2047),
        ("bytes=-5000", 206, 0, 2047),
        ("bytes=2000-5000", 206, 2000, 2047),
        ("bytes=0-0", 206, 0, 0),
        ("bytes=500-0", 416, 0, 0),
        ("bytes=5000-10000", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=0-5,10-20", 200, 0, 2047),
        ("lines=1-2", 200, 0, 2047),
        ("bytes=-", 200, 0, 2047),
    ],
)
def test_ranges(registry: AtollRegistry, asked: str, status: int, first: int, last: int):
    data = bytes(number % 251 for number in range(2048))
    digest = registry.push_blob("conformance/ranges", data)
    answer = registry.ask("GET", f"/v2/conformance/ranges/blobs/{digest}", headers={"Range": asked})
    assert answer.status == status
    if status == 416:
        assert answer.headers["Content-Range"] == "bytes */2048"
        return
    assert answer.body == data[first : last + 1]
    assert answer.headers.get("Content-Range") == (f"bytes {first}-{last}/2048" if status == 206 else None)


def test_have_it_already(registry: AtollRegistry, repo: str):
    digest = registry.push_blob(repo, b"once")
    assert registry.ask("GET", f"/v2/{repo}/blobs/{digest}", headers={"If-None-Match": f'"{digest}"'}).status == 304


def test_delete(registry: AtollRegistry, repo: str):
    digest = registry.push_blob(repo, random_bytes())
    assert registry.ask("DELETE", f"/v2/{repo}/blobs/{digest}").status == 202
    answer = registry.ask("DELETE", f"/v2/{repo}/blobs/{digest}")
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


def test_methods_there_are_not(registry: AtollRegistry, repo: str):
    answer = registry.ask("PUT", f"/v2/{repo}/blobs/{digest_of(b'x')}", b"x")
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert "GET" in answer.headers["Allow"]
    assert registry.ask("GET", "/v1/search").status == 404
