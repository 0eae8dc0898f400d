"""docker load and save: our own, skopeo's, compressed, and hostile."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import json
import lzma
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from atoll.errors import AtollError, DigestMismatch, InvalidInput, NotFound
from atoll.images import ImageStore, archive_in
from image_harness import collected, make_image, member, run, stream, tar_of

BASE, TOP = tar_of(("etc/x", b"x" * 5000)), tar_of(("app", b"y"))


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def docker_archive(layers: list[bytes], names: list[str] | None = None, tags: list[str] | None = None, **extra: Any) -> bytes:
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(layer)}" for layer in layers]}, **extra}).encode()
    names = names or [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": tags or ["app:1"], "Layers": names}]).encode()
    return tar_of(*zip(names, layers, strict=True), ("config.json", config), ("manifest.json", manifest))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress])
def test_save_and_load(store: ImageStore, pack: Any):
    @run
    async def _():
        image = await make_image(store, "app:1", BASE, TOP, Cmd=["/app"])
        store.tag("app:1", "app:2")
        data = pack(await collected(store.save(["app"])))
        await store.remove(image.id, force=True)
        seen: list[dict[str, Any]] = []
        [loaded] = await store.load(stream(data), seen.append)
        assert loaded.id == image.id
        assert loaded.repo_tags == ("app:1", "app:2")
        assert {"stream": "Loaded image: app:1\n"} in seen


def test_load_tells_of_the_bytes_of_new_layers(store: ImageStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive_in, "REPORT_S", 0.0)
    tar = tar_of(("f", os.urandom(2 << 20)))

    async def main() -> None:
        image = await make_image(store, "told:1", tar)
        saved = await collected(store.save(["told:1"]))
        told: list[dict[str, Any]] = []
        await store.load(stream(saved), told.append)
        assert [message for message in told if message.get("status")] == []  # the layer was here
        await store.remove("told:1")
        await store.load(stream(saved), told.append)
        layers = [message for message in told if message.get("status")]
        assert {(message["status"], message["id"]) for message in layers} == {("Loading layer", image.layers[0].diff_id[7:19])}
        current = [message["progressDetail"]["current"] for message in layers]
        (total,) = {message["progressDetail"]["total"] for message in layers}
        assert total > 2 << 20
        assert current == sorted(current)
        assert (current[0], current[-1]) == (0, total)
        assert len(current) > 3

    asyncio.run(main())


def test_save_is_the_same_each_time(store: ImageStore):
    @run
    async def _():
        await make_image(store, "app:1", BASE, TOP)
        first = await collected(store.save(["app:1"]))
        await store.load(stream(first))
        assert await collected(store.save(["app:1"])) == first


def test_save_by_id_has_no_names(store: ImageStore):
    @run
    async def _():
        image = await make_image(store, "app:1", BASE)
        data = await collected(store.save([image.id]))
        await store.remove("app:1")
        seen: list[dict[str, Any]] = []
        [loaded] = await store.load(stream(data), seen.append)
        assert loaded.repo_tags == ()
        assert seen[-1] == {"stream": f"Loaded image ID: {image.id}\n"}
        with pytest.raises(NotFound, match="No such image: nope:latest"):
            store.save(["nope"])


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
def test_there_and_back_through_skopeo(store: ImageStore, tmp_path: Path, transport: str):
    @run
    async def _():
        image = await make_image(store, "app:1", BASE, TOP, Env=["A=1"])
        ours, theirs = tmp_path / "ours.tar", tmp_path / "theirs.tar"
        ours.write_bytes(await collected(store.save(["app:1"])))
        command = ["skopeo", "copy", "--insecure-policy", "--quiet"]
        name = "docker.io/library/back:1"
        await asyncio.to_thread(subprocess.run, [*command, f"docker-archive:{ours}", f"{transport}:{theirs}:{name}"], check=True)
        await store.remove("app:1")
        [loaded] = await store.load(stream(theirs.read_bytes()))
        assert loaded.config["rootfs"] == image.config["rootfs"]
        assert loaded.repo_tags == ("back:1",)
        # What others packed is given out as it came.
        again = tmp_path / "again.tar"
        again.write_bytes(await collected(store.save(["back:1"])))
        shown = await asyncio.to_thread(subprocess.run, ["skopeo", "inspect", f"docker-archive:{again}"], capture_output=True, check=True)
        assert json.loads(shown.stdout)["Layers"] == loaded.config["rootfs"]["diff_ids"]


def test_old_archives_link_layers(store: ImageStore):
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(BASE)}"]}}).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": ["b/layer.tar"]}]).encode()
    archive = tar_of(
        ("a/layer.tar", BASE), member("b/layer.tar", tarfile.SYMTYPE, "../a/layer.tar"), ("c.json", config), ("manifest.json", manifest)
    )
    [image] = asyncio.run(store.load(stream(archive)))
    assert (image.layers[0].directory / "etc/x").exists()


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (docker_archive([BASE], ["../../x"]), "lies outside the archive: refused"),
        (docker_archive([BASE], ["/etc/x"]), "lies outside the archive: refused"),
        (tar_of(("x", b"")), "neither a saved image nor an OCI layout"),
        (tar_of(("manifest.json", b"{")), "manifest.json is not JSON"),
        (tar_of(("manifest.json", b"{}")), "not a list of images"),
        (tar_of(("manifest.json", b'[{"Config": 5}]')), "without a proper Config"),
        (tar_of(("manifest.json", b'[{"Config": "c", "Layers": []}]')), "'c', which is not in the archive"),
        (tar_of(("manifest.json", b'[{"Config": "../c", "Layers": []}]')), "lies outside"),
        (tar_of(("c", b"[]"), ("manifest.json", b'[{"Config": "c", "Layers": []}]')), "no proper rootfs"),
        (
            tar_of(("c", b'{"rootfs":{"diff_ids":["sha256:../../x"]}}'), ("manifest.json", b'[{"Config":"c","Layers":[]}]')),
            "no proper rootfs",
        ),
        (docker_archive([BASE], tags=["Not A Name"]), "invalid reference format"),
        (docker_archive([b"not a tar" * 100]), "not a tar archive"),
        (docker_archive([tar_of(("../../x", b""))]), r"\.\./\.\./x: its name climbs out of the root"),
        (docker_archive([BASE])[:3000], "truncated"),
        (b"", "neither a saved image"),
        (gzip.compress(docker_archive([BASE]))[:-20], "truncated gzip"),
        (gzip.compress(docker_archive([BASE])) + b"garbage", "(truncated|broken) gzip"),
        (member("x", tarfile.SYMTYPE).tobuf() + bytes(1024), "neither a saved image"),
    ],
)
def test_a20_hostile_archives_leave_nothing(store: ImageStore, archive: bytes, message: str):
    with pytest.raises(InvalidInput, match=message):
        asyncio.run(store.load(stream(archive)))
    assert store.all() == []
    assert list(store.blobs.all()) == []
    assert list((store._root / "l").iterdir()) == []
    assert list((store._root / "tmp").iterdir()) == []


def test_a_link_that_climbs_out_names_nothing(store: ImageStore):
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(BASE)}"]}}).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": ["l"]}]).encode()
    for target in ("/etc/passwd", "../../etc/passwd"):
        archive = tar_of(member("l", tarfile.SYMTYPE, target), ("c.json", config), ("manifest.json", manifest))
        with pytest.raises(InvalidInput, match="lies outside the archive"):
            asyncio.run(store.load(stream(archive)))


def test_a14_a_layer_that_is_not_what_the_config_says(store: ImageStore):
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(TOP)}"]}}).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": ["l"]}]).encode()
    with pytest.raises(DigestMismatch, match="unpacks to content of"):
        asyncio.run(store.load(stream(tar_of(("l", BASE), ("c.json", config), ("manifest.json", manifest)))))
    assert list(store.blobs.all()) == []


def test_an_oci_layout_whose_blob_lies_about_its_digest(store: ImageStore):
    digest = f"sha256:{sha(b'other')}"
    index = {"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 2}]}
    archive = tar_of((f"blobs/{digest.replace(':', '/')}", b"{}"), ("index.json", json.dumps(index).encode()))
    with pytest.raises(DigestMismatch, match="in truth"):
        asyncio.run(store.load(stream(archive)))


def test_a62_an_index_that_contains_itself_many_times(store: ImageStore):
    def layered(depth: int) -> list[tuple[str, bytes]]:
        if depth == 0:
            return [("", b'{"schemaVersion":2,"config":{},"layers":[]}')]
        below = layered(depth - 1)
        inner = below[-1][1]
        line = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": f"sha256:{sha(inner)}", "size": len(inner)}
        return [*below, ("", json.dumps({"manifests": [line]}).encode())]

    documents = [data for _, data in layered(6)]
    members = [(f"blobs/sha256/{sha(data)}", data) for data in documents[:-1]]
    with pytest.raises(InvalidInput, match="too deeply"):
        asyncio.run(store.load(stream(tar_of(*members, ("index.json", documents[-1])))))


def test_a_cancelled_load_leaves_nothing(store: ImageStore):
    async def endless():
        data = docker_archive([BASE])
        yield data[:2000]
        await asyncio.sleep(60)

    async def work():
        task = asyncio.create_task(store.load(endless()))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert list((store._root / "tmp").iterdir()) == []


def test_a_broken_stream_is_told(store: ImageStore):
    async def broken():
        yield docker_archive([BASE])[:2000]
        raise AtollError("the client went away")

    with pytest.raises(AtollError, match="went away"):
        asyncio.run(store.load(broken()))
