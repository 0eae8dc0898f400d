"""A full disk during a pull, a load and an import: what to free is said, nothing half made stays, and the store goes on."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from atoll.config import Instance
from atoll.errors import LimitExceeded, Unavailable
from atoll.images import ImageStore, extract
from image_harness import Registry, collected, make_image, stream, tar_of

SIZE = 6 << 20
SMALL, LARGE = tar_of(("small", b"s" * 1000)), tar_of(("large", os.urandom(SIZE * 2 // 3)))
ADVICE = "no space left on device: give some back with `docker builder prune`"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageStore]:
    """A store on a disk of six megabytes, that may fill it."""
    monkeypatch.setattr(extract, "_spare", lambda _: 1 << 40)
    place = tmp_path / "d"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting needs root")
    store = ImageStore(Instance(place))
    try:
        store.open()
        yield store
    finally:
        store.close()
        subprocess.run(["umount", place], check=True)


def fails_and_goes_on(store: ImageStore, work: Callable[[], Awaitable[object]]) -> None:
    async def main() -> None:
        await make_image(store, "before", SMALL)
        content = store._root
        used = sum(path.stat().st_size for path in content.rglob("*") if path.is_file() and "images.db" not in path.name)
        with pytest.raises(Unavailable, match=ADVICE):
            await work()
        left = sum(path.stat().st_size for path in content.rglob("*") if path.is_file() and "images.db" not in path.name)
        assert left == used
        assert [image.repo_tags for image in store.all()] == [("before:latest",)]
        assert await store.check() == []
        await make_image(store, "after", tar_of(("other", b"o" * 1000)))

    asyncio.run(main())


def test_load(small: ImageStore, store: ImageStore):
    asyncio.run(make_image(store, "large", LARGE))
    saved = asyncio.run(collected(store.save(["large"])))
    fails_and_goes_on(small, lambda: small.load(stream(saved)))


def test_pull(small: ImageStore, store: ImageStore, registry: Registry):
    name = f"{registry.address}/full/large:1"
    asyncio.run(make_image(store, name, LARGE))
    asyncio.run(store.push(name))
    fails_and_goes_on(small, lambda: small.pull(name))


def test_import(small: ImageStore):
    more = tar_of(("one", os.urandom(SIZE // 2)), ("two", os.urandom(SIZE * 2 // 3)))
    fails_and_goes_on(small, lambda: small.import_tar(stream(more)))


def test_what_cannot_fit_is_refused_before_it_is_written(small: ImageStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()  # what there is room for is looked at again, and a part of the disk is always left
    with pytest.raises(LimitExceeded, match=r"more than there is room for; give some back with"):
        asyncio.run(small.import_tar(stream(LARGE)))
