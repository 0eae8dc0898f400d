"""Manifests, tags and referrers, as the conformance program of distribution-spec goes through them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from registry_harness import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    AtollRegistry,
    descriptor,
    digest_of,
    random_bytes,
)

_numbers = itertools.count()


@pytest.fixture
def repo() -> str:
    return f"conformance/manifests{next(_numbers)}"


def encoded(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


def index(*manifests: dict[str, Any], **fields: Any) -> dict[str, Any]:
    lines = [descriptor(encoded(one), one["mediaType"], fields.get("algorithm", "sha256")) for one in manifests]
    fields.pop("algorithm", None)
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": lines, **fields}


def accepted(registry: AtollRegistry, repo: str, value: dict[str, Any], reference: str = "", algorithm: str = "sha256") -> str:
    """Pushed by digest, or by tag; read back by both, byte for byte."""
    body = encoded(value)
    digest = digest_of(body, algorithm)
    answer = registry.push_manifest(repo, reference or digest, value)
    assert answer.status == 201, answer
    assert answer.headers["Docker-Content-Digest"] == digest
    for place in (answer.headers["Location"], f"/v2/{repo}/manifests/{reference or digest}"):
        read = registry.ask("GET", place)
        assert (read.status, read.body, read.headers["Content-Type"]) == (200, body, value["mediaType"])
        assert read.headers["Docker-Content-Digest"] == digest
    head = registry.ask("HEAD", f"/v2/{repo}/manifests/{digest}")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(body)), b"")
    return digest


def refused(registry: AtollRegistry, repo: str, value: dict[str, Any] | bytes, code: str, **kind: str) -> None:
    answer = registry.push_manifest(repo, "bad", value, **kind)
    assert (answer.status, answer.code) == (400, code), answer
    assert registry.ask("GET", f"/v2/{repo}/manifests/bad").code == "MANIFEST_UNKNOWN"


# what is taken -----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_image_by_digest(registry: AtollRegistry, repo: str, algorithm: str):
    accepted(registry, repo, registry.image(repo, random_bytes(), random_bytes(), algorithm=algorithm), algorithm=algorithm)


def test_image_by_tag(registry: AtollRegistry, repo: str):
    digest = accepted(registry, repo, registry.image(repo, random_bytes()), "v1.0_a-b")
    answer = registry.ask("GET", f"/v2/{repo}/manifests/v1.0_a-b", headers={"If-None-Match": f'"{digest}"'})
    assert answer.status == 304


def test_tag_moves(registry: AtollRegistry, repo: str):
    first = accepted(registry, repo, registry.image(repo, random_bytes()), "latest")
    second = accepted(registry, repo, registry.image(repo, random_bytes()), "latest")
    assert first != second
    assert registry.ask("GET", f"/v2/{repo}/manifests/{first}").status == 200


def test_docker_types(registry: AtollRegistry, repo: str):
    image = registry.image(repo, random_bytes()) | {"mediaType": DOCKER_MANIFEST}
    accepted(registry, repo, image, "v2s2")
    accepted(registry, repo, index(image) | {"mediaType": DOCKER_INDEX}, "list")


def test_large_manifest(registry: AtollRegistry, repo: str):
    notes = {f"large-{number}": "A" * 10_000 for number in range(390)}
    accepted(registry, repo, registry.image(repo, random_bytes(), annotations=notes), "large")


def test_indexes(registry: AtollRegistry, repo: str):
    images = [registry.image(repo, random_bytes()) for _ in range(2)]
    for image in images:
        accepted(registry, repo, image)
    inner = index(*images)
    accepted(registry, repo, inner, "index")
    accepted(registry, repo, index(inner), "nested")
    accepted(registry, repo, index(), "empty")
    accepted(registry, repo, index(images[0], artifactType="application/x"), "artifact")


def test_artifact_without_layers_and_with_unknown_fields(registry: AtollRegistry, repo: str):
    image = registry.image(repo, artifactType="application/x", **{"org.example.field": {"deep": [1]}})
    image["config"]["mediaType"] = OCI_EMPTY
    image["config"]["data"] = "e30="
    accepted(registry, repo, image, "artifact")


def test_layers_that_stay_at_their_vendor(registry: AtollRegistry, repo: str):
    image = registry.image(repo, random_bytes())
    foreign = descriptor(b"elsewhere", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")
    image["layers"].append(foreign | {"urls": ["https://vendor.example/x"]})
    accepted(registry, repo, image, "foreign")


def test_several_tags_at_once(registry: AtollRegistry, repo: str):
    image = registry.image(repo, random_bytes())
    digest = digest_of(encoded(image))
    answer = registry.push_manifest(repo, f"{digest}?tag=one&tag=two", image)
    assert (answer.status, answer.headers.get_all("OCI-Tag")) == (201, ["one", "two"])
    for tag in ("one", "two"):
        assert registry.ask("GET", f"/v2/{repo}/manifests/{tag}").headers["Docker-Content-Digest"] == digest
    assert registry.push_manifest(repo, f"{digest}?tag=-bad", image).code == "TAG_INVALID"
    many = "&".join(f"tag=t{number}" for number in range(200))
    assert registry.push_manifest(repo, f"{digest}?{many}", image).code == "TAG_INVALID"


def test_type_by_content_type_alone(registry: AtollRegistry, repo: str):
    image = registry.image(repo, random_bytes())
    kind = image.pop("mediaType")
    answer = registry.push_manifest(repo, "untyped", image, f"{kind}; charset=utf-8")
    assert answer.status == 201
    assert registry.ask("GET", f"/v2/{repo}/manifests/untyped").headers["Content-Type"] == kind


# what is refused ---------------------------------------------------------------------------------------------------------------------
def test_blob_that_was_not_pushed(registry: AtollRegistry, repo: str):
    image = registry.image(repo, random_bytes())
    missing = descriptor(random_bytes(), "application/vnd.oci.image.layer.v1.tar")
    refused(registry, repo, image | {"layers": [missing]}, "MANIFEST_BLOB_UNKNOWN")
    refused(registry, repo, image | {"config": missing}, "MANIFEST_BLOB_UNKNOWN")
    refused(registry, repo, index(image), "MANIFEST_BLOB_UNKNOWN")


def test_blob_of_another_repository(registry: AtollRegistry, repo: str):
    refused(registry, repo, registry.image(f"{repo}/other", random_bytes()), "MANIFEST_BLOB_UNKNOWN")


def test_wrong_size(registry: AtollRegistry, repo: str):
    image = registry.image(repo, random_bytes())
    image["layers"][0]["size"] += 1
    refused(registry, repo, image, "SIZE_INVALID")


def test_wrong_digest(registry: AtollRegistry, repo: str):
    image = registry.image(repo, random_bytes())
    digest = digest_of(encoded(image))
    answer = registry.push_manifest(repo, digest, encoded(image) + b"  ")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    for method in ("PUT", "GET", "DELETE"):
        assert registry.ask(method, f"/v2/{repo}/manifests/sha256:baddigeststring", b"{}").code == "DIGEST_INVALID"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"[" * 100_000,
        b'{"schemaVersion": 1, "name": "a", "fsLayers": []}',
        b'{"schemaVersion": 2}',
        b'{"schemaVersion": 2, "config": 7, "layers": []}',
        b'{"schemaVersion": 2, "config": {"digest": "sha256:x", "size": 1}, "layers": []}',
        b'{"schemaVersion": 2, "layers": {}}',
        b"\xff\xfe",
    ],
    ids=range(12),
)
def test_what_is_no_manifest(registry: AtollRegistry, repo: str, body: bytes):
    answer = registry.push_manifest(repo, "bad", body)
    assert answer.status == 400
    assert answer.code in ("MANIFEST_INVALID", "DIGEST_INVALID")


@pytest.mark.parametrize(
    "change",
    [
        {"manifests": []},  # image and index at once: CVE-2021-41190
        {"mediaType": DOCKER_MANIFEST},  # other than its Content-Type
        {"mediaType": ["a"]},
        {"layers": [{"mediaType": "x", "size": -1, "digest": digest_of(b"")}]},
        {"layers": [{"mediaType": "x", "size": True, "digest": digest_of(b"")}]},
        {"layers": [{"mediaType": "x", "size": 1 << 80, "digest": digest_of(b"")}]},
        {"layers": [{"mediaType": "x", "size": 0}]},
        {"layers": [7] * 3},
        {"layers": [descriptor(b"{}", OCI_CONFIG)] * 501},
        {"subject": "sha256:x"},
        {"annotations": {"a": 1}},
        {"artifactType": "x" * 5000},
    ],
    ids=range(12),
)
def test_manifest_with_a_fault(registry: AtollRegistry, repo: str, change: dict[str, Any]):
    refused(registry, repo, registry.image(repo) | change, "MANIFEST_INVALID", kind=OCI_MANIFEST)


def test_unknown_type(registry: AtollRegistry, repo: str):
    refused(registry, repo, registry.image(repo) | {"mediaType": "text/html"}, "MANIFEST_INVALID")


def test_too_large(registry: AtollRegistry, repo: str):
    answer = registry.push_manifest(repo, "big", b" " * ((4 << 20) + 1))
    assert (answer.status, answer.code) == (413, "SIZE_INVALID")


NAMES = ["UPPER", "a//b", ".a", "a.", "-a", "a/", "a_-b", "a..b", "a___b", "a/../b", "..", "a%2fb", "a%00b", "ü", "a" * 256, "a%0d%0ab"]


@pytest.mark.parametrize("name", NAMES)
def test_repository_names(registry: AtollRegistry, name: str):
    from urllib.parse import quote

    path = quote(name, safe="/%")
    for method, rest in (("GET", "tags/list"), ("POST", "blobs/uploads/"), ("GET", "manifests/x"), ("PUT", "manifests/x")):
        answer = registry.ask(method, f"/v2/{path}/{rest}", b"")
        assert (answer.status, answer.code) in ((400, "NAME_INVALID"), (404, "UNSUPPORTED")), (method, rest)


@pytest.mark.parametrize(
    "name", ["a", "a/b/c/d/e/f/g", "a__b", "a---b", "a.b_c-d/0", "a" * 255, "blobs/uploads", "tags/list", "v2/manifests"]
)
def test_repository_names_that_are_some(registry: AtollRegistry, name: str):
    registry.push_image(name, "t", b"content")
    assert registry.ask("GET", f"/v2/{name}/tags/list").json == {"name": name, "tags": ["t"]}


@pytest.mark.parametrize("tag", ["..", ".", "-x", "a%2fb", "a%20b", "x" * 129, "a%0ab", "@"])
def test_tags_that_are_none(registry: AtollRegistry, repo: str, tag: str):
    image = registry.image(repo, random_bytes())
    for answer in (registry.push_manifest(repo, tag, image), registry.ask("GET", f"/v2/{repo}/manifests/{tag}")):
        assert (answer.status, answer.code) in ((400, "TAG_INVALID"), (400, "NAME_INVALID"))


# discovery ---------------------------------------------------------------------------------------------------------------------------
def test_tags(registry: AtollRegistry, repo: str):
    image = registry.image(repo, random_bytes())
    tags = sorted(["v10", "v9", "Z", "a", "_x", "latest", "0"])
    for tag in tags:
        registry.push_manifest(repo, tag, image)
    listed = registry.ask("GET", f"/v2/{repo}/tags/list")
    assert listed.json == {"name": repo, "tags": tags}
    assert "Link" not in listed.headers
    assert registry.ask("GET", f"/v2/{repo}/tags/list?last={tags[2]}").json["tags"] == tags[3:]
    assert registry.ask("GET", f"/v2/{repo}/tags/list?n=0").json["tags"] == []
    assert "Link" not in registry.ask("GET", f"/v2/{repo}/tags/list?n=0").headers
    assert registry.ask("GET", f"/v2/{repo}/tags/list?n=7").headers.get("Link") is None
    walked, place = [], f"/v2/{repo}/tags/list?n=3"
    while place:
        page = registry.ask("GET", place)
        walked += page.json["tags"]
        assert len(page.json["tags"]) <= 3
        place = (page.headers.get("Link") or "").partition(">")[0].lstrip("<")
    assert walked == tags


@pytest.mark.parametrize("count", ["-1", "x", "1.5", "", "99999999999999999999", "%D9%A3"])
def test_counts_that_are_none(registry: AtollRegistry, count: str):
    assert registry.ask("GET", f"/v2/_catalog?n={count}").code == "PAGINATION_NUMBER_INVALID"


def test_unknown_repository(registry: AtollRegistry):
    assert registry.ask("GET", "/v2/never/seen/tags/list").code == "NAME_UNKNOWN"
    assert registry.ask("GET", "/v2/never/seen/manifests/latest").code == "MANIFEST_UNKNOWN"


def test_catalog(own_registry: AtollRegistry):
    for name in ("b", "a/x", "c"):
        own_registry.push_image(name, "t", b"same")
    own_registry.push_blob("no-manifest", b"x")
    assert own_registry.ask("GET", "/v2/_catalog").json == {"repositories": ["a/x", "b", "c"]}
    page = own_registry.ask("GET", "/v2/_catalog?n=2")
    assert page.json == {"repositories": ["a/x", "b"]}
    assert page.headers["Link"] == '</v2/_catalog?n=2&last=b>; rel="next"'
    assert own_registry.ask("GET", "/v2/_catalog?n=2&last=b").json == {"repositories": ["c"]}


def test_referrers(registry: AtollRegistry, repo: str):
    about = registry.image(repo, random_bytes())
    subject = descriptor(encoded(about), OCI_MANIFEST)
    path = f"/v2/{repo}/referrers/{subject['digest']}"
    empty = registry.ask("GET", path)
    assert (empty.status, empty.headers["Content-Type"]) == (200, OCI_INDEX)
    assert empty.json == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}

    notes = {"org.example": "hello"}
    signature = registry.image(repo, random_bytes(), subject=subject, artifactType="application/signature", annotations=notes)
    sbom = registry.image(repo, random_bytes(), subject=subject)  # its type is its configuration's
    both = index(about, subject=subject, artifactType="application/bundle")
    assert registry.push_manifest(repo, "sig", signature).headers["OCI-Subject"] == subject["digest"]  # before the subject itself
    assert registry.push_manifest(repo, "image", about).status == 201
    assert registry.push_manifest(repo, digest_of(encoded(sbom)), sbom).headers["OCI-Subject"] == subject["digest"]
    assert registry.push_manifest(repo, "bundle", both).headers["OCI-Subject"] == subject["digest"]

    expected = {
        digest_of(encoded(signature)): ("application/signature", notes),
        digest_of(encoded(sbom)): (OCI_CONFIG, None),
        digest_of(encoded(both)): ("application/bundle", None),
    }
    listed = registry.ask("GET", path)
    assert {one["digest"]: (one["artifactType"], one.get("annotations")) for one in listed.json["manifests"]} == expected
    assert "OCI-Filters-Applied" not in listed.headers
    filtered = registry.ask("GET", f"{path}?artifactType=application%2Fsignature")
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
    assert [one["digest"] for one in filtered.json["manifests"]] == [digest_of(encoded(signature))]
    assert registry.ask("GET", f"{path}?artifactType=none").json["manifests"] == []
    registry.ask("DELETE", f"/v2/{repo}/manifests/{digest_of(encoded(signature))}")
    assert len(registry.ask("GET", path).json["manifests"]) == 2


def test_referrers_come_in_pages(registry: AtollRegistry, repo: str):
    subject = descriptor(b"not here", OCI_MANIFEST)
    for number in range(5):
        registry.push_manifest(repo, f"t{number}", registry.image(repo, subject=subject, annotations={"a": str(number) * 1_500_000}))
    seen, place = set(), f"/v2/{repo}/referrers/{subject['digest']}"
    pages = 0
    while place:
        page = registry.ask("GET", place)
        seen |= {one["digest"] for one in page.json["manifests"]}
        place = (page.headers.get("Link") or "").partition(">")[0].lstrip("<")
        pages += 1
    assert (len(seen), pages) == (5, 3)


def test_referrers_of_what_nobody_knows(registry: AtollRegistry):
    assert registry.ask("GET", f"/v2/never/seen/referrers/{digest_of(b'x')}").json["manifests"] == []
    assert registry.ask("GET", "/v2/never/seen/referrers/sha256:abc").status == 400


# management --------------------------------------------------------------------------------------------------------------------------
def test_delete(registry: AtollRegistry, repo: str):
    digest = registry.push_image(repo, "one", random_bytes())
    registry.push_manifest(repo, "two", registry.ask("GET", f"/v2/{repo}/manifests/one").body)
    assert registry.ask("DELETE", f"/v2/{repo}/manifests/one").status == 202
    assert registry.ask("DELETE", f"/v2/{repo}/manifests/one").code == "MANIFEST_UNKNOWN"
    assert registry.ask("GET", f"/v2/{repo}/tags/list").json["tags"] == ["two"]
    assert registry.ask("GET", f"/v2/{repo}/manifests/{digest}").status == 200
    assert registry.ask("DELETE", f"/v2/{repo}/manifests/{digest}").status == 202
    for reference in ("two", digest):
        assert registry.ask("HEAD", f"/v2/{repo}/manifests/{reference}").status == 404
    assert registry.ask("DELETE", f"/v2/{repo}/manifests/{digest}").code == "MANIFEST_UNKNOWN"
    assert registry.ask("GET", f"/v2/{repo}/tags/list").json["tags"] == []


def test_same_manifest_in_two_repositories(registry: AtollRegistry, repo: str):
    data = random_bytes()
    digest = registry.push_image(f"{repo}/a", "t", data)
    assert registry.push_image(f"{repo}/b", "t", data) == digest
    assert registry.ask("DELETE", f"/v2/{repo}/a/manifests/{digest}").status == 202
    assert registry.ask("GET", f"/v2/{repo}/b/manifests/t").status == 200
