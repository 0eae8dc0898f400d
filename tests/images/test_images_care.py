"""`image why`, `image fsck` and disk usage: told by what is truly on disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tarfile
from typing import Any

import pytest

from atoll.config import Instance
from atoll.images import ImageStore
from image_harness import collected, make_image, member, stream, tar_of

BASE = tar_of(("etc/a", b"a" * 1000), ("usr/big", b"b" * 500_000), ("usr/lib/x", b"x" * 3000), ("usr/lib/y", b"y" * 4000))
CHANGE = tar_of(("etc/a", b"A" * 2000), ("opt/new", b"n" * 100), member("opt/same", tarfile.LNKTYPE, "opt/new"))
DELETE = tar_of(("usr/.wh.big", b""), ("usr/lib/.wh..wh..opq", b""), ("usr/lib/z", b"z" * 7))


def test_why(store: ImageStore):
    steps = [
        {"created_by": "COPY base"},
        {"created_by": "ENV A=1", "empty_layer": True},
        {"created_by": "RUN change"},
        {"created_by": "RUN rm"},
    ]

    async def work() -> dict[str, Any]:
        image = await make_image(store, "app", BASE, CHANGE, DELETE)
        layers = image.layers
        store.create_image({"history": steps}, layers, tags=["app"])
        return await store.explain("app")

    told = asyncio.run(work())
    assert [layer["CreatedBy"] for layer in told["Layers"]] == ["COPY base", "RUN change", "RUN rm"]
    counts = [[layer[what] for what in ("Added", "Changed", "Deleted", "Hidden")] for layer in told["Layers"]]
    assert counts == [[4, 0, 0, 1000 + 500_000 + 3000 + 4000], [2, 1, 0, 0], [1, 0, 3, 0]]
    assert told["Hidden"] == 508_000
    assert told["LargestFiles"][0] == {"Path": "/etc/a", "Size": 2000, "Layer": 2}
    assert told["HiddenFiles"][0] == {"Path": "/usr/big", "Size": 500_000, "Layer": 1, "HiddenBy": 3}


def test_fsck_of_what_is_sound(store: ImageStore):
    async def work() -> None:
        await make_image(store, "ours", BASE, CHANGE, DELETE)
        saved = await collected(store.save(["ours"]))
        assert await store.check() == []
        await store.remove("ours")
        await store.load(stream(saved))
        assert await store.check() == []

    asyncio.run(work())


@pytest.mark.parametrize("loaded", [False, True])
def test_fsck_finds_a_changed_file(store: ImageStore, loaded: bool):
    async def work() -> list[str]:
        await make_image(store, "app", BASE)
        if loaded:
            saved = await collected(store.save(["app"]))
            await store.remove("app")
            await store.load(stream(saved))
        file = store.resolve("app").layers[0].directory / "usr/lib/x"
        info = file.stat()
        file.write_bytes(b"!" * 3000)
        os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
        return await store.check()

    (fault,) = asyncio.run(work())
    assert ("usr/lib/x is not what it was" if loaded else "was changed") in fault


def test_fsck_finds_what_is_missing_and_what_is_spoilt(store: ImageStore):
    async def work() -> list[str]:
        image = await make_image(store, "app", BASE, CHANGE)
        shutil.rmtree(image.layers[1].directory)
        store.blobs.path(image.id).write_bytes(b"{}")
        return await store.check()

    faults = asyncio.run(work())
    assert any("is in truth" in fault for fault in faults)
    assert any("missing on disk" in fault for fault in faults)


def test_disk_usage_is_what_du_finds_and_prune_gives_it_back(store: ImageStore, instance: Instance):
    def du() -> int:
        return int(subprocess.run(["du", "-s", "-B1", instance.content], check=True, capture_output=True).stdout.split()[0])

    async def work() -> None:
        empty = du()
        await make_image(store, "app", BASE, CHANGE, DELETE)
        saved = await collected(store.save(["app"]))
        await store.remove("app")
        await store.load(stream(saved))
        os.sync()  # blocks of what is not written yet are the kernel's guess
        await store.measure()
        used = store.disk_usage()["LayersSize"]
        assert abs(used - du()) <= du() * 0.01
        await store.prune(dangling=False)
        os.sync()
        await store.measure()
        assert abs(store.disk_usage()["LayersSize"] - du()) <= du() * 0.01
        assert du() - empty < 400 << 10  # the database's own pages and log
        assert not os.listdir(instance.content / "l")

    asyncio.run(work())
