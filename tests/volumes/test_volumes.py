"""Named volumes: life, filters, hostile names, options, and trees made to be hard to remove."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from atoll.errors import InUse, InvalidInput, NotFound, NotSupported, SystemFailure
from atoll.volumes import Volumes
from atoll.volumes.removal import remove_tree


def test_life(instance):
    volumes = Volumes(instance)
    made = volumes.create("data", labels={"team": "ml"})
    assert made["Mountpoint"] == str(instance.volumes / "data" / "_data")
    assert (made["Name"], made["Driver"], made["Scope"], made["Labels"], made["Options"]) == (
        "data",
        "local",
        "local",
        {"team": "ml"},
        None,
    )
    (volumes.path("data") / "file").write_text("kept")
    again = Volumes(instance).create("data", labels={"team": "other"})
    assert again == made  # an existing volume is answered as it is
    assert volumes.mount("data") == volumes.path("data")
    volumes.remove("data")
    with pytest.raises(NotFound, match="get data: no such volume"):
        volumes.inspect("data")
    with pytest.raises(NotFound):
        volumes.remove("data")
    volumes.remove("data", force=True)
    assert list(instance.volumes.iterdir()) == []


def test_in_use(instance):
    volumes = Volumes(instance, used_by=lambda name: ["abc"] if name == "data" else [])
    volumes.create("data")
    with pytest.raises(InUse, match=r"remove data: volume is in use - \[abc\]"):
        volumes.remove("data")
    assert volumes.prune({"all": ["true"]})["VolumesDeleted"] == []
    assert [volume["Name"] for volume in volumes.list({"dangling": ["false"]})] == ["data"]


def test_prune_takes_anonymous_volumes(instance):
    volumes = Volumes(instance)
    volumes.create("named")
    anonymous = volumes.create()["Name"]
    assert len(anonymous) == 64
    (volumes.path(anonymous) / "big").write_bytes(b"x" * 100_000)
    pruned = volumes.prune()
    assert pruned["VolumesDeleted"] == [anonymous]
    assert pruned["SpaceReclaimed"] >= 100_000
    assert volumes.prune({"all": ["1"]})["VolumesDeleted"] == ["named"]


def test_filters(instance):
    volumes = Volumes(instance)
    volumes.create("red", labels={"color": "red"})
    volumes.create("blue", labels={"color": "blue"})

    def names(**filters):
        return [volume["Name"] for volume in volumes.list(filters)]

    assert names() == ["blue", "red"]
    assert names(label=["color=red"]) == ["red"]
    assert names(name=["lu"]) == ["blue"]
    assert names(driver=["nfs"]) == []
    with pytest.raises(InvalidInput, match="invalid filter 'colour'"):
        names(colour=["red"])
    with pytest.raises(InvalidInput):
        names(dangling=["perhaps"])


@pytest.mark.parametrize("name", ["a", "../escape", ".hidden", "a/b", "a b", "x\0y", "é" * 3, "a" * 300, "-dash", "new\nline"])
def test_hostile_names(instance, name):
    volumes = Volumes(instance)
    with pytest.raises(InvalidInput):
        volumes.create(name)
    with pytest.raises(NotFound):
        volumes.remove(name)
    assert list(instance.volumes.iterdir()) == []


def test_unknown_drivers_and_options(instance):
    volumes = Volumes(instance)
    with pytest.raises(NotFound, match='plugin "rexray" not found'):
        volumes.create("data", driver="rexray")
    for options in ({"bogus": "1"}, {"type": "nfs"}, {"o": "bind", "device": "relative"}, {"device": "/dev/sda1"}):
        with pytest.raises(InvalidInput):
            volumes.create("data", options=options)
    with pytest.raises(NotSupported):
        volumes.create("data", options={"size": "10g"})


def test_tmpfs_volume(instance):
    volumes = Volumes(instance)
    volumes.create("scratch", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000,noexec"})
    path = volumes.mount("scratch")
    assert volumes.mount("scratch") == path  # once
    try:
        assert path.stat().st_uid == 1000
        assert os.statvfs(path).f_blocks * os.statvfs(path).f_frsize == 1 << 20
    finally:
        volumes.unmount("scratch")
    volumes.unmount("scratch")
    volumes.mount("scratch")
    volumes.remove("scratch")  # takes the mount away too
    assert "scratch" not in Path("/proc/self/mountinfo").read_text()


def test_bind_volume_keeps_what_is_not_its_own(instance):
    source = instance.home / "source"
    source.mkdir()
    (source / "precious").write_text("mine")
    volumes = Volumes(instance)
    volumes.create("bound", options={"type": "none", "o": "bind,ro", "device": str(source)})
    path = volumes.mount("bound")
    assert (path / "precious").read_text() == "mine"
    with pytest.raises(OSError, match="Read-only"):
        (path / "new").write_text("x")
    volumes.remove("bound")
    assert (source / "precious").read_text() == "mine"
    volumes.create("missing", options={"o": "bind", "device": str(instance.home / "nothing")})
    with pytest.raises(InvalidInput, match="no such directory"):
        volumes.mount("missing")
    volumes.create("odd", options={"type": "nosuchfs", "device": "x"})
    with pytest.raises(SystemFailure, match="mount nosuchfs"):
        volumes.mount("odd")


def test_a_crash_leaves_debris_that_the_next_start_sweeps(instance):
    volumes = Volumes(instance)
    volumes.create("data")
    (instance.volumes / ".new-1234").mkdir()
    (instance.volumes / "half").mkdir()  # no volume.json: not ours to delete, not a volume
    assert [volume["Name"] for volume in Volumes(instance).list()] == ["data"]
    assert not (instance.volumes / ".new-1234").exists()


def test_removing_a_very_deep_tree(instance):
    top = instance.home / "deep"
    top.mkdir()
    outside = instance.home / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    fd = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.symlink(outside, "link", dir_fd=fd)
    os.close(fd)
    (top / "link").symlink_to(outside)
    started = time.monotonic()
    remove_tree(top)
    assert time.monotonic() - started < 5
    assert not top.exists()
    assert (outside / "file").read_text() == "stays"
    remove_tree(top)  # idempotent
