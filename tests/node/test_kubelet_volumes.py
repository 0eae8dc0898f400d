"""Files of volumes: changed at once, never outside their place; claims and hostPaths checked."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from atoll.client.resources import Resource
from atoll.config import Instance
from atoll.node.directories import PodDirectory
from atoll.node.volumes import VolumeError, Volumes, atomic, claims, ownership, subpath
from atoll.node.volumes.atomic import File
from atoll.node.volumes.payload import Source, payload
from atoll.node.volumes.volumes import remove_directory


def test_atomic_files_are_replaced_together(tmp_path: Path) -> None:
    assert atomic.write(tmp_path, {"a": File(b"1", 0o644), "sub/b": File(b"2", 0o600)})
    first = os.readlink(tmp_path / "..data")
    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "sub" / "b").stat().st_mode & 0o777 == 0o600
    assert not atomic.write(tmp_path, {"a": File(b"1", 0o644), "sub/b": File(b"2", 0o600)})
    assert atomic.write(tmp_path, {"a": File(b"3", 0o644), "c": File(b"4", 0o644)})
    assert os.readlink(tmp_path / "..data") != first
    assert not (tmp_path / first).exists()
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("..")) == ["a", "c"]


def test_atomic_files_are_read_by_the_group(tmp_path: Path) -> None:
    atomic.write(tmp_path, {"key": File(b"k", 0o400)}, group=1234)
    found = (tmp_path / "key").stat()
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 0o440)


def a_source(objects: dict[str, Any]) -> Source:
    class Tokens:
        async def get(self, pod: dict[str, Any], audience: str, seconds: int) -> str:
            return f"token-for-{audience or 'api'}"

    async def fetch(resource: Resource, name: str) -> dict[str, Any] | None:
        return objects.get(f"{resource.plural}/{name}")

    return Source(fetch, Tokens(), {"status.podIP": "10.0.0.9"}, {"memory": "1Gi"})


POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"b": 'x"y', "a": "1"}},
    "spec": {"containers": [{"name": "c"}]},
}


def files_of(volume: dict[str, Any], objects: dict[str, Any] | None = None) -> dict[str, File]:
    return asyncio.run(payload(POD, {"name": "v", **volume}, a_source(objects or {})))


def test_projected_sources_are_joined() -> None:
    sources = [
        {"serviceAccountToken": {"path": "token", "audience": "vault"}},
        {"configMap": {"name": "ca", "items": [{"key": "ca.crt", "path": "certs/ca.crt", "mode": 0o400}]}},
        {"secret": {"name": "keys", "optional": True}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    found = files_of({"projected": {"sources": sources, "defaultMode": 0o640}}, {"configmaps/ca": {"data": {"ca.crt": "PEM", "more": "x"}}})
    assert found["token"].content == b"token-for-vault"
    assert found["certs/ca.crt"] == File(b"PEM", 0o400)
    assert found["labels"] == File(b'a="1"\nb="x\\"y"', 0o640)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "gone"}}, 'configmap "gone" not found'),
        ({"secret": {"secretName": "keys", "items": [{"key": "nope", "path": "x"}]}}, "references non-existent secret key: nope"),
        ({"secret": {"secretName": "keys", "items": [{"key": "k", "path": "../x"}]}}, "must be relative and stay inside"),
        ({"projected": {"sources": [{"clusterTrustBundle": {}}]}}, "is not supported"),
    ],
)
def test_what_cannot_be_had_is_named(volume: dict[str, Any], message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        files_of(volume, {"secrets/keys": {"data": {"k": "eA=="}}})


def test_subpath_stays_inside(tmp_path: Path) -> None:
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("host")
    (volume / "link").symlink_to(outside)
    (volume / "up").symlink_to("../outside/secret")
    target = tmp_path / "pins" / "0"
    for part in ("link/secret", "up"):
        try:
            subpath.bind(volume, part, target)
            assert not (target.is_file() and target.read_text() == "host")
        except VolumeError:
            pass
        finally:
            subpath.unbind(target)
    for part in ("../outside", "/etc", "a/../../outside"):
        with pytest.raises(VolumeError, match="relative and stay inside"):
            subpath.bind(volume, part, target)


def test_subpath_is_made_and_pinned(tmp_path: Path, instance: Instance) -> None:
    directory = PodDirectory(instance.home / "pod")
    volume = tmp_path / "volume"
    volume.mkdir()
    target = subpath.bind(volume, "deep/er", directory.subpaths / "v" / "c" / "0")
    (target / "file").write_text("x")
    assert (volume / "deep" / "er" / "file").read_text() == "x"
    remove_directory(directory)
    assert (volume / "deep" / "er" / "file").exists()
    assert not directory.root.exists()


def test_group_owns_the_tree(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "f").touch(0o600)
    (tmp_path / "d" / "l").symlink_to("/etc/passwd")
    before = os.stat("/etc/passwd")
    ownership.give_to_group(tmp_path, 4321, only_if_root_differs=False)
    found = (tmp_path / "d" / "f").stat()
    assert (found.st_gid, found.st_mode & 0o777) == (4321, 0o660)
    assert (tmp_path / "d").stat().st_mode & 0o7777 == 0o2770
    assert os.stat("/etc/passwd") == before


def test_host_path_types(tmp_path: Path) -> None:
    made = claims.host_path({"path": str(tmp_path / "new" / "dir"), "type": "DirectoryOrCreate"})
    assert made.is_dir()
    assert claims.host_path({"path": "/dev/null", "type": "CharDevice"}) == Path("/dev/null")
    with pytest.raises(VolumeError, match="is not a file"):
        claims.host_path({"path": str(tmp_path), "type": "File"})
    with pytest.raises(VolumeError, match="No such file"):
        claims.host_path({"path": str(tmp_path / "gone"), "type": "Directory"})


def test_files_of_the_api_are_never_writable(instance: Instance, tmp_path: Path) -> None:
    """A container that could replace `..data` would lead the next update's clean-up out of the volume (CVE-2017-1002102)."""
    kinds = {"c": {"configMap": {}}, "s": {"secret": {}}, "d": {"downwardAPI": {}}, "p": {"projected": {}}, "e": {"emptyDir": {}}}
    mounts = [{"name": name, "mountPath": f"/{name}", "readOnly": False} for name in kinds]
    container = {"name": "main", "volumeMounts": mounts}
    pod = {
        "metadata": {"uid": "u1"},
        "spec": {"volumes": [{"name": name, **kind} for name, kind in kinds.items()], "containers": [container]},
    }
    made = asyncio.run(_volumes(instance).mounts_of(pod, container, dict.fromkeys(kinds, tmp_path), {}))
    assert [mount.read_only for mount in made] == [True, True, True, True, False]


def _volumes(instance: Instance) -> Volumes:
    nobody: Any = None
    return Volumes(instance, nobody, nobody, {})


def test_giving_to_a_group_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that has the volume already swaps a file for a symlink between the look and the change."""
    victim = tmp_path / "victim"
    victim.touch(0o600)
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "f").touch(0o600)
    chown = os.chown

    def swap(name: Any, *arguments: int, **options: Any) -> None:
        if name == "f":
            (volume / "f").unlink()
            (volume / "f").symlink_to(victim)
        chown(name, *arguments, **options)

    monkeypatch.setattr(os, "chown", swap)
    ownership.give_to_group(volume, 4321, only_if_root_differs=False)
    assert (volume / "f").is_symlink()
    assert victim.stat().st_mode & 0o7777 == 0o600
