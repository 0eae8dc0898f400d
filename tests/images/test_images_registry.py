"""Pull and push against Debian's docker-registry and skopeo, which nobody here wrote."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from typing import Any

import pytest

from atoll.config import Instance
from atoll.errors import NotFound, Unauthenticated, Unavailable
from atoll.images import ImageStore, Platform
from image_harness import Registry, make_image, tar_of

BASE = tar_of(("etc/os-release", b"NAME=test\n"), ("bin/sh", os.urandom(300_000)))
TOP = tar_of(("app/main", b"hello"))


def test_push_and_pull_back(store: ImageStore, registry: Registry):
    name = f"{registry.address}/team/app:1.0"
    seen: list[dict[str, Any]] = []

    async def work():
        image = await make_image(store, name, BASE, TOP, Cmd=["/app/main"])
        pushed = await store.push(name, progress=seen.append)
        await store.remove(name)
        assert store.all() == []
        pulled = await store.pull(name, progress=seen.append)
        assert pulled.id == image.id
        assert pulled.repo_tags == (name,)
        assert pulled.repo_digests == (f"{registry.address}/team/app@{pushed.digest}",)
        assert [(path / "app/main").exists() for path in store.snapshots.overlay_lowers(pulled)] == [True, False]
        (manifest,) = store.inspect(name, manifests=True)["Manifests"]
        assert (manifest["ID"], manifest["Kind"], manifest["Available"]) == (pushed.digest, "image", True)
        assert manifest["Descriptor"]["size"] == pushed.size
        assert manifest["ImageData"]["Platform"] == {"os": "linux", "architecture": Platform.of_host().architecture}
        assert manifest["ImageData"]["Size"]["Unpacked"] == pulled.size
        # All the store's blobs are this image's.
        assert manifest["Size"]["Content"] == sum(store.blobs.size(digest) or 0 for digest in store.blobs.all())
        assert store.summaries(manifests=True)[0]["Manifests"] == [manifest]
        assert "Manifests" not in store.summaries()[0]
        return pushed

    pushed = asyncio.run(work())
    statuses = [message.get("status") for message in seen]
    assert f"The push refers to repository [{registry.address}/team/app]" in statuses
    assert f"1.0: digest: {pushed.digest} size: {pushed.size}" in statuses
    assert {"status": "Pulling from team/app", "id": "1.0"} in seen
    for status in ("Pushed", "Pulling fs layer", "Download complete", "Pull complete", f"Digest: {pushed.digest}"):
        assert status in statuses
    assert f"Status: Downloaded newer image for {name}" in statuses


def test_second_pull_is_up_to_date_and_fetches_nothing(store: ImageStore, registry: Registry):
    name = f"{registry.address}/twice:latest"
    seen: list[dict[str, Any]] = []

    async def work():
        await make_image(store, name, BASE)
        await store.push(name)
        await store.pull(name)
        await store.pull(name, progress=seen.append)

    asyncio.run(work())
    statuses = [message.get("status") for message in seen]
    assert "Already exists" in statuses
    assert f"Status: Image is up to date for {name}" in statuses


def test_second_push_finds_layers_there_and_other_repository_mounts_them(store: ImageStore, registry: Registry):
    first, second = f"{registry.address}/mount/a:1", f"{registry.address}/mount/b:1"
    seen: list[dict[str, Any]] = []

    async def work():
        await make_image(store, first, tar_of(("only/here", os.urandom(1000))))
        store.tag(first, second)
        digest = (await store.push(first)).digest
        assert (await store.push(first, progress=seen.append)).digest == digest
        assert (await store.push(second, progress=seen.append)).digest == digest

    asyncio.run(work())
    statuses = [message.get("status") for message in seen]
    assert "Layer already exists" in statuses
    assert "Mounted from mount/a" in statuses


def test_pull_by_digest(store: ImageStore, registry: Registry):
    name = f"{registry.address}/digest"

    async def work():
        await make_image(store, name, TOP)
        digest = (await store.push(name)).digest
        await store.remove(name, force=True)
        image = await store.pull(f"{name}@{digest}")
        assert image.repo_tags == ()
        assert store.resolve(f"{name}@{digest}").id == image.id

    asyncio.run(work())


@pytest.mark.parametrize("form", ["v2s2", "oci"])
def test_what_skopeo_pushes_we_pull(store: ImageStore, registry: Registry, instance: Instance, form: str):
    async def work():
        image = await make_image(store, "local/app:1", BASE, TOP, Env=["A=b"])
        archive = instance.home / "app.tar"
        with archive.open("wb") as file:
            async for chunk in store.save(["local/app:1"]):
                file.write(chunk)
        target = f"docker://{registry.address}/skopeo/{form}:1"
        command = ["skopeo", "copy", "--insecure-policy", "--quiet", "--dest-tls-verify=false", f"--format={form}"]
        await asyncio.to_thread(subprocess.run, [*command, f"docker-archive:{archive}", target], check=True)
        await store.remove(image.id)
        pulled = await store.pull(f"{registry.address}/skopeo/{form}:1")
        assert pulled.config["rootfs"] == image.config["rootfs"]
        assert pulled.runtime_config["Env"] == ["A=b"]
        # Pushed on, it keeps the manifest it came with.
        store.tag(pulled.id, f"{registry.address}/onward/{form}:2")
        pushed = await store.push(f"{registry.address}/onward/{form}:2")
        assert pulled.manifest is not None
        assert pushed.digest == pulled.manifest.digest

    asyncio.run(work())


def test_what_we_push_skopeo_reads(store: ImageStore, registry: Registry, instance: Instance):
    name = f"{registry.address}/forskopeo:1"

    async def work():
        await make_image(store, name, BASE, TOP, Labels={"a": "b"})
        await store.push(name)

    asyncio.run(work())
    shown = subprocess.run(["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True).stdout
    assert json.loads(shown)["Labels"] == {"a": "b"}
    layout = instance.home / "layout"
    subprocess.run(
        ["skopeo", "copy", "--insecure-policy", "--quiet", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:1"], check=True
    )


def test_index_gives_this_machines_image(store: ImageStore, registry: Registry):
    """A multi-platform index made of two images, as buildx pushes it."""
    import urllib.request

    name = f"{registry.address}/multi"

    async def work():
        ours = await make_image(store, f"{name}:ours", TOP)
        other = store.create_image({"architecture": "s390x", "os": "linux", "config": {}}, ours.layers, tags=[f"{name}:other"])
        pushed = [await store.push(f"{name}:{tag}") for tag in ("other", "ours")]
        platforms = [{"os": "linux", "architecture": "s390x"}, {"os": "linux", "architecture": ours.config["architecture"]}]
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{**one.wire(), "platform": platform} for one, platform in zip(pushed, platforms, strict=True)],
        }
        request = urllib.request.Request(
            f"http://{registry.address}/v2/multi/manifests/latest",
            json.dumps(index).encode(),
            {"Content-Type": index["mediaType"]},
            method="PUT",
        )
        await asyncio.to_thread(lambda: urllib.request.urlopen(request).close())
        pulled = await store.pull(name)
        assert pulled.id == ours.id != other.id
        described = await store.describe(name)
        assert described["Descriptor"]["mediaType"] == index["mediaType"]
        assert described["Platforms"] == platforms
        assert (await store.describe(f"{name}:ours"))["Descriptor"] == pushed[1].wire()
        index["manifests"] = index["manifests"][:1]
        request.data = json.dumps(index).encode()
        await asyncio.to_thread(lambda: urllib.request.urlopen(request).close())
        with pytest.raises(NotFound, match="no matching manifest for linux/"):
            await store.pull(name)

    asyncio.run(work())


def test_unknown_tag_and_repository(store: ImageStore, registry: Registry):
    async def work():
        await make_image(store, f"{registry.address}/known:1", TOP)
        await store.push(f"{registry.address}/known:1")
        with pytest.raises(NotFound, match=r"manifest for .*/known:2 not found: manifest unknown"):
            await store.pull(f"{registry.address}/known:2")
        with pytest.raises(NotFound, match=r"nothing.* not found"):
            await store.pull(f"{registry.address}/nothing")
        with pytest.raises(NotFound, match="An image does not exist locally with the tag"):
            await store.push(f"{registry.address}/nothing")

    asyncio.run(work())


def test_basic_authentication(store: ImageStore, locked_registry: Registry):
    name = f"{locked_registry.address}/private:1"
    right = {"username": "ann", "password": "secret", "serveraddress": locked_registry.address}
    wrong = {**right, "password": "guess"}

    async def work():
        await make_image(store, name, TOP)
        with pytest.raises(Unauthenticated, match="may require 'docker login'"):
            await store.push(name)
        with pytest.raises(Unauthenticated, match="incorrect username or password"):
            await store.push(name, auth=wrong)
        await store.push(name, auth=right)
        with pytest.raises(NotFound, match=r"pull access denied for .*private, repository does not exist or may require 'docker login'"):
            await store.pull(name)
        assert (await store.pull(name, auth=right)).repo_tags == (name,)
        assert (await store.login(right))["Status"] == "Login Succeeded"
        with pytest.raises(Unauthenticated):
            await store.login(wrong)

    asyncio.run(work())


def test_connection_refused_names_the_host(store: ImageStore):
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1/v2/.*refused"):
        asyncio.run(store.pull("127.0.0.1:1/app"))
