"""Garbage collection: what goes, what stays, and that it does not disturb who is at work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atoll.errors import NotFound
from atoll.registry import check, collect
from registry_harness import OCI_INDEX, OCI_MANIFEST, AtollRegistry, descriptor, digest_of, random_bytes


def blob_files(registry: AtollRegistry) -> set[str]:
    return {f"sha256:{path.name}" for path in (registry.root / "blobs" / "sha256").iterdir()}


def test_blobs_of_deleted_manifests(own_registry: AtollRegistry):
    shared, alone = random_bytes(1000), random_bytes(2000)
    gone = own_registry.push_image("a", "gone", shared, alone)
    own_registry.push_image("a", "stays", shared)
    own_registry.ask("DELETE", f"/v2/a/manifests/{gone}")
    assert collect(own_registry.root).blobs == 0  # too young
    done = collect(own_registry.root, grace_s=-1)
    assert (done.blobs, done.size, done.strays) == (1, 2000, [])
    assert blob_files(own_registry) == {digest_of(shared), digest_of(b"{}")}
    assert own_registry.ask("GET", f"/v2/a/blobs/{digest_of(alone)}").code == "BLOB_UNKNOWN"
    assert own_registry.ask("GET", f"/v2/a/blobs/{digest_of(shared)}").body == shared
    assert check(own_registry.root) == []


def test_blob_stays_while_one_repository_needs_it(own_registry: AtollRegistry):
    data = random_bytes()
    own_registry.push_image("a", "t", data)
    own_registry.push_blob("b", data)
    done = collect(own_registry.root, grace_s=-1)
    assert (done.links, done.blobs) == (1, 0)
    assert own_registry.ask("GET", f"/v2/a/blobs/{digest_of(data)}").status == 200
    assert own_registry.ask("GET", f"/v2/b/blobs/{digest_of(data)}").status == 404
    assert own_registry.ask("GET", "/v2/b/tags/list").code == "NAME_UNKNOWN"


def test_untagged_manifests_go_only_when_asked(own_registry: AtollRegistry):
    digest = own_registry.push_image("a", "moves", random_bytes())
    own_registry.push_image("a", "moves", random_bytes())
    assert collect(own_registry.root, grace_s=-1).manifests == 0
    assert own_registry.ask("GET", f"/v2/a/manifests/{digest}").status == 200
    assert collect(own_registry.root, untagged=True).manifests == 0  # too young
    done = collect(own_registry.root, grace_s=-1, untagged=True)
    assert (done.manifests, done.blobs) == (1, 1)
    assert own_registry.ask("GET", f"/v2/a/manifests/{digest}").status == 404


def test_index_keeps_its_manifests_and_a_subject_its_referrers(own_registry: AtollRegistry):
    image = own_registry.image("a", random_bytes())
    line = descriptor(json.dumps(image).encode(), OCI_MANIFEST)
    own_registry.push_manifest("a", line["digest"], image)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [line]}
    own_registry.push_manifest("a", "index", index)
    referrer = own_registry.image("a", random_bytes(), subject=line)
    own_registry.push_manifest("a", digest_of(json.dumps(referrer).encode()), referrer)
    assert collect(own_registry.root, grace_s=-1, untagged=True).manifests == 0
    own_registry.ask("DELETE", "/v2/a/manifests/index")
    assert collect(own_registry.root, grace_s=-1, untagged=True).manifests == 3
    assert blob_files(own_registry) == set()
    assert check(own_registry.root) == []


def test_what_a_crash_left(own_registry: AtollRegistry):
    own_registry.ask("POST", "/v2/a/blobs/uploads/")
    own_registry.stop()  # a server expires uploads itself
    stray = own_registry.root / "blobs" / "sha256" / ("0" * 64)
    stray.write_bytes(b"x" * 100)
    old = own_registry.root / "uploads" / f"{'0' * 32}.{'0' * 16}.sha256"
    old.write_bytes(b"y")
    os.utime(old, (1, 1))
    done = collect(own_registry.root)
    assert (done.strays, done.size, done.uploads) == ([f"sha256:{'0' * 64}"], 100, 1)
    assert len(list((own_registry.root / "uploads").iterdir())) == 1


def test_pushes_go_on_meanwhile(own_registry: AtollRegistry):
    end = time.monotonic() + 1.5

    def push(worker: int) -> int:
        number = 0
        while time.monotonic() < end:
            own_registry.push_image(f"r{worker}", f"t{number}", random_bytes(5000), config=random_bytes(50))
            own_registry.ask("DELETE", f"/v2/r{worker}/manifests/t{number - 1}")
            number += 1
        return number

    with ThreadPoolExecutor(2) as pool:
        pushing = [pool.submit(push, worker) for worker in range(2)]
        while time.monotonic() < end:
            collect(own_registry.root, untagged=True)
        assert all(one.result() > 3 for one in pushing)
    assert check(own_registry.root) == []
    collect(own_registry.root, grace_s=-1, untagged=True)
    assert check(own_registry.root) == []
    assert len(blob_files(own_registry)) == 4


def test_deleted_blob_is_a_fault_of_its_image(own_registry: AtollRegistry):
    data = random_bytes()
    digest = own_registry.push_image("a", "t", data)
    own_registry.ask("DELETE", f"/v2/a/blobs/{digest_of(data)}")
    assert check(own_registry.root) == [f"a@{digest} refers to {digest_of(data)}, which was deleted"]


def test_no_registry(tmp_path: Path):
    for work in (collect, check):
        with pytest.raises(NotFound, match="holds no registry"):
            work(tmp_path)
    assert list(tmp_path.iterdir()) == []


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "atoll", "registry", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_verbs(own_registry: AtollRegistry):
    root = ("--root", str(own_registry.root))
    data = random_bytes(1500)
    own_registry.push_blob("a", data)
    done = run("gc", "--grace", "0s", *root)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 manifests, 1 blobs" in done.stdout
    assert "1.5kB" in done.stdout
    assert run("fsck", *root).stdout == "The registry is sound.\n"
    own_registry.push_blob("a", data)
    (own_registry.root / "blobs" / "sha256" / digest_of(data).partition(":")[2]).unlink()
    done = run("fsck", *root)
    assert done.returncode == 1
    assert "is missing on disk" in done.stdout
    assert "1 faults" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("serve", "--addr", "nonsense"), "write host:port"),
        (("serve", "--addr", "127.0.0.1:99999"), "write host:port"),
        (("serve", "--htpasswd", "/nowhere"), "/nowhere cannot be read"),
        (("serve", "--tls-cert", "/nowhere"), "both, a certificate and its key"),
        (("serve", "--tls-cert", "/nowhere", "--tls-key", "/nowhere"), "cannot be used"),
        (("serve", "--max-blob", "lots"), "invalid size"),
        (("gc",), "holds no registry"),
        (("fsck", "extra"), "accepts no arguments"),
    ],
)
def test_bad_words(tmp_path: Path, words: tuple[str, ...], message: str):
    root = () if "extra" in words else ("--root", str(tmp_path / "r"))
    done = run(*words, *root)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
