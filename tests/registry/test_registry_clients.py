"""Clients nobody here wrote, and our own: skopeo, docker, oras, and Debian's registry on the other side."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from atoll.config import Instance
from atoll.errors import NotFound, Unauthenticated
from atoll.images import ImageStore
from atoll.registry import check, collect
from engine_harness import EngineDaemon, has_docker
from image_harness import Registry, make_image, tar_of
from registry_harness import AtollRegistry

LAYERS = (tar_of(("bin/sh", os.urandom(300_000))), tar_of(("app/main", b"hello")))


@pytest.fixture
def store(instance: Instance) -> Iterator[ImageStore]:
    store = ImageStore(instance)
    store.open()
    yield store
    store.close()


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[AtollRegistry]:
    """Knows user ann with password "secret"."""
    (tmp_path / "htpasswd").write_text(f"ann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    registry = AtollRegistry(tmp_path, "--htpasswd", str(tmp_path / "htpasswd"))
    yield registry
    registry.stop()


@pytest.fixture
def debian(tmp_path: Path) -> Iterator[Registry]:
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed")
    (tmp_path / "debian").mkdir()
    registry = Registry(tmp_path / "debian")
    yield registry
    registry.stop()


def skopeo(*words: str) -> str:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    copy = ["--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"] if words[0] == "copy" else ["--tls-verify=false"]
    done = subprocess.run(["skopeo", words[0], *copy, *words[1:]], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


# the instance's own registry ---------------------------------------------------------------------------------------------------------
def inodes(directory: Path) -> dict[str, tuple[int, int]]:
    """Inode and number of names of every blob."""
    return {path.name: (path.stat().st_ino, path.stat().st_nlink) for path in (directory / "blobs/sha256").iterdir()}


def test_content_is_on_disk_once(store: ImageStore, instance: Instance, tmp_path: Path):
    registry = AtollRegistry(tmp_path, home=instance.home)
    name = f"{registry.address}/app:1"

    async def work() -> None:
        image = await make_image(store, name, *LAYERS)
        await store.push(name)
        shared = {digest for digest, (_, names) in inodes(registry.root).items() if names == 2}
        assert image.id[7:] in shared, "the engine has the configuration; layers it has unpacked"
        await store.remove(name)
        assert check(registry.root) == []
        pulled = await store.pull(name)
        assert pulled.id == image.id
        theirs, ours = inodes(registry.root), inodes(instance.content)
        blobs = [blob.digest[7:] for layer in pulled.layers for blob in store._database.layer_blobs(layer.diff_id)]
        assert len(blobs) == len(LAYERS)
        assert all(theirs[digest] == ours[digest] and ours[digest][1] == 2 for digest in blobs)
        registry.ask("DELETE", "/v2/app/manifests/1")
        collect(registry.root, grace_s=-1, untagged=True)
        assert not inodes(registry.root)
        await store.remove(name)
        assert not inodes(instance.content)

    try:
        asyncio.run(work())
    finally:
        registry.stop()


@pytest.mark.skipif(not has_docker(), reason="the docker CLI is not installed")
def test_what_is_pushed_to_it_is_at_once_usable(instance: Instance, tmp_path: Path):
    daemon = EngineDaemon(instance)
    daemon.start()
    registry = AtollRegistry(tmp_path, home=instance.home)
    name = f"{registry.address}/team/busybox:1"
    try:
        daemon.make_busybox()
        daemon.docker("save", "-o", str(tmp_path / "saved.tar"), "busybox")
        skopeo("copy", f"docker-archive:{tmp_path}/saved.tar", f"docker://{name}")
        daemon.docker("rmi", "-f", "busybox")
        assert daemon.docker("run", "--rm", "--network", "none", name, "echo", "there").stdout == "there\n"
        assert {names for _, names in inodes(registry.root).values()} >= {2}
    finally:
        registry.stop()
        daemon.destroy()


# our own client ----------------------------------------------------------------------------------------------------------------------
def test_our_client(store: ImageStore, registry: AtollRegistry):
    name, other = f"{registry.address}/ours/app:1", f"{registry.address}/ours/other:1"
    seen: list[dict] = []

    async def work() -> None:
        image = await make_image(store, name, *LAYERS, Cmd=["/app/main"])
        pushed = await store.push(name)
        store.tag(name, other)
        await store.push(other, progress=seen.append)
        await store.remove(image.id, force=True)
        pulled = await store.pull(name)
        assert pulled.id == image.id
        assert pulled.repo_digests == (f"{registry.address}/ours/app@{pushed.digest}",)
        assert (await store.pull(f"{registry.address}/ours/app@{pushed.digest}")).id == image.id
        with pytest.raises(NotFound):
            await store.pull(f"{registry.address}/ours/app:none")

    asyncio.run(work())
    assert "Mounted from ours/app" in [message.get("status") for message in seen]


def test_our_client_with_a_password(store: ImageStore, locked: AtollRegistry):
    name = f"{locked.address}/app:1"

    async def work() -> None:
        await make_image(store, name, LAYERS[1])
        for wrong in (None, {"username": "ann", "password": "wrong"}):
            with pytest.raises(Unauthenticated):
                await store.push(name, auth=wrong)
        await store.push(name, auth={"username": "ann", "password": "secret"})
        await store.pull(name, auth={"username": "ann", "password": "secret"})

    asyncio.run(work())


# skopeo ------------------------------------------------------------------------------------------------------------------------------
def saved(store: ImageStore, path: Path) -> Path:
    async def work() -> None:
        await make_image(store, "local/app:1", *LAYERS, Env=["A=b"])
        with path.open("wb") as file:
            async for chunk in store.save(["local/app:1"]):
                file.write(chunk)

    asyncio.run(work())
    return path


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_skopeo_round_trip_by_way_of_debians_registry(
    store: ImageStore, registry: AtollRegistry, debian: Registry, tmp_path: Path, form: str
):
    archive = saved(store, tmp_path / "app.tar")
    ours, theirs, back = f"{registry.address}/sk/{form}", f"{debian.address}/sk/{form}", f"{registry.address}/back/{form}"
    skopeo("copy", f"--format={form}", f"docker-archive:{archive}", f"docker://{ours}:1")
    skopeo("copy", f"docker://{ours}:1", f"docker://{theirs}:1")
    skopeo("copy", f"docker://{theirs}:1", f"docker://{back}:2")
    manifests = [skopeo("inspect", "--raw", f"docker://{place}") for place in (f"{ours}:1", f"{theirs}:1", f"{back}:2")]
    assert len(set(manifests)) == 1
    for blob in (json.loads(manifests[0])["config"], *json.loads(manifests[0])["layers"]):
        path = f"{form}/blobs/{blob['digest']}"
        assert registry.ask("GET", f"/v2/sk/{path}").body == registry.ask("GET", f"/v2/back/{path}").body
    assert json.loads(skopeo("list-tags", f"docker://{back}"))["Tags"] == ["2"]
    skopeo("delete", f"docker://{back}:2")
    assert registry.ask("GET", f"/v2/back/{form}/tags/list").json["tags"] == []
    assert check(registry.root) == []


def test_skopeo_copies_an_index(registry: AtollRegistry, tmp_path: Path):
    images = [
        registry.image("multi", os.urandom(1000), config=b'{"architecture": "%s", "os": "linux"}' % arch) for arch in (b"amd64", b"arm64")
    ]
    lines = []
    for image, arch in zip(images, ("amd64", "arm64"), strict=True):
        body = json.dumps(image).encode()
        digest = registry.push_manifest("multi", "child", image).headers["Docker-Content-Digest"]
        lines.append(
            {"mediaType": image["mediaType"], "digest": digest, "size": len(body), "platform": {"architecture": arch, "os": "linux"}}
        )
    registry.push_manifest("multi", "all", {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": lines})
    skopeo("copy", "--all", "--preserve-digests", f"docker://{registry.address}/multi:all", f"oci:{tmp_path}/layout:all")
    skopeo("copy", "--all", "--preserve-digests", f"oci:{tmp_path}/layout:all", f"docker://{registry.address}/multi-copy:all")
    raw = [skopeo("inspect", "--raw", f"docker://{registry.address}/{name}:all") for name in ("multi", "multi-copy")]
    assert raw[0] == raw[1]


# docker ------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not has_docker(), reason="the docker CLI is not installed")
def test_docker(instance: Instance, locked: AtollRegistry, tmp_path: Path):
    daemon = EngineDaemon(instance, {"DOCKER_CONFIG": str(tmp_path / "docker")})
    daemon.start()
    try:
        name = f"{locked.address}/team/busybox:1"
        daemon.make_busybox()
        daemon.docker("tag", "busybox", name)
        assert "no basic auth credentials" in (refused := daemon.docker("push", name, check=False).stderr) or "denied" in refused
        assert daemon.docker("login", "-u", "ann", "--password-stdin", locked.address, input="wrong", check=False).returncode
        assert "Succeeded" in daemon.docker("login", "-u", "ann", "--password-stdin", locked.address, input="secret").stdout
        assert "digest: sha256:" in daemon.docker("push", name).stdout
        daemon.docker("rmi", "-f", name, "busybox")
        assert daemon.docker("run", "--rm", "--network", "none", name, "echo", "back").stdout == "back\n"
        assert daemon.docker("pull", f"{locked.address}/team/none", check=False).returncode == 1
        daemon.docker("logout", locked.address)
        assert daemon.docker("pull", name, check=False).returncode == 1
    finally:
        daemon.destroy()
    assert check(locked.root) == []


# oras --------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("chunked", [False, True])
def test_oras(registry: AtollRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunked: bool):
    client_module = pytest.importorskip("oras.client")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.bin").write_bytes(os.urandom(700_000))
    target = f"{registry.address}/artifacts/model:v{int(chunked)}"
    client = client_module.OrasClient(hostname=registry.address, insecure=True)
    client.push(target, files=["model.bin:application/x-model"], do_chunked=chunked, chunk_size=100_000, quiet=True)
    assert f"v{int(chunked)}" in client.get_tags(target)
    (pulled,) = client.pull(target, outdir=str(tmp_path / "out"))
    assert Path(pulled).read_bytes() == (tmp_path / "model.bin").read_bytes()


def test_oras_with_a_password(locked: AtollRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    client_module = pytest.importorskip("oras.client")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").write_bytes(b"content")
    client = client_module.OrasClient(hostname=locked.address, insecure=True, auth_backend="basic")
    client.auth.set_basic_auth("ann", "secret")
    client.push(f"{locked.address}/a:1", files=["data"], quiet=True)
    assert client.get_tags(f"{locked.address}/a") == ["1"]
