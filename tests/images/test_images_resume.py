"""A pull that broke off goes on in the next one, after a kill -9 as well; what it left is neither believed nor kept for ever."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.config import Instance
from atoll.errors import DigestMismatch, InvalidInput, Unavailable
from atoll.http import Request, Response
from atoll.images import ImageStore, registry_session
from atoll.images.model import OCI_CONFIG, OCI_LAYER, sha256
from atoll.images.partial import KEPT_S
from fake_registry import CONFIG, Fake, cut, leaves_nothing, manifest, pointer, with_fake
from image_harness import tar_of

TAR = tar_of(("noise", os.urandom(5 << 20)), ("last", b"end"))
LAYER = gzip.compress(TAR, 0)
HALF = len(LAYER) // 2
PULL = """
import asyncio, sys
from atoll.config import Instance
from atoll.images import ImageStore
from pathlib import Path
store = ImageStore(Instance(Path(sys.argv[1])))
store.open()
asyncio.run(store.pull(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_session, "BACKOFF_S", 0.001)


class Cut(Fake):
    """Serves LAYER, of each request no more than the first half, for as long as it is `broken`."""

    def __init__(self) -> None:
        super().__init__()
        config = json.dumps({**json.loads(CONFIG), "rootfs": {"diff_ids": [sha256(TAR)]}}).encode()
        self.manifest = manifest(config=pointer(config, OCI_CONFIG), layers=[pointer(LAYER, f"{OCI_LAYER}+gzip")])
        self.blobs = {sha256(config): config, sha256(LAYER): LAYER}
        self.broken = True
        self.stall: asyncio.Event | None = None

    def asked(self) -> list[str | None]:
        return [request.headers.get("range") for request in self.requests if request.segments[-1] == sha256(LAYER)]

    def blob(self, request: Request, data: bytes) -> Response:
        if data is not LAYER or not self.broken:
            return super().blob(request, data)
        if request.headers.get("range"):
            return Response(503, [("Retry-After", "0")], b"")
        fields = [("Content-Length", str(len(LAYER)))]
        return Response(200, fields, self.stalled() if self.stall else cut(LAYER, HALF))

    async def stalled(self) -> AsyncIterator[bytes]:
        assert self.stall is not None
        yield LAYER[:HALF]
        await self.stall.wait()


def partial(store: ImageStore) -> list[Path]:
    return list((store._root / "partial").iterdir())


async def break_off(fake: Cut, store: ImageStore) -> Path:
    with pytest.raises(Unavailable):
        await store.pull(f"{fake.address}/app")
    assert not list((store._root / "tmp").iterdir())
    (path,) = partial(store)
    assert path.stat().st_size == HALF
    fake.broken = False
    fake.requests.clear()
    return path


async def pulled(fake: Cut, store: ImageStore, *ranges: str | None) -> None:
    image = await store.pull(f"{fake.address}/app")
    assert (image.layers[0].directory / "last").read_bytes() == b"end"
    assert fake.asked() == list(ranges)
    assert partial(store) == []
    assert await store.check() == []


def test_the_next_pull_goes_on(instance: Instance):
    async def work(fake: Cut, store: ImageStore) -> None:
        await break_off(fake, store)
        await pulled(fake, store, f"bytes={HALF}-")

    with_fake(instance, work, make=Cut)


def test_a_registry_without_range_begins_again(instance: Instance):
    async def work(fake: Cut, store: ImageStore) -> None:
        await break_off(fake, store)
        fake.answer = lambda request: Response(200, [], LAYER) if request.segments[-1] == sha256(LAYER) else None
        await pulled(fake, store, f"bytes={HALF}-")

    with_fake(instance, work, make=Cut)


def test_the_registry_goes_on_where_its_mirror_broke_off(instance: Instance):
    async def work(fake: Cut, store: ImageStore) -> None:
        def answer(request: Request) -> None:
            fake.broken = (request.headers.get("host") or "").startswith("localhost")

        fake.answer = answer
        image = await store.pull(f"{fake.address}/app")
        assert (image.layers[0].directory / "last").read_bytes() == b"end"
        asked = [(request.headers.get("host", "").partition(":")[0], request.headers.get("range")) for request in fake.requests]
        layer = [pair for pair, request in zip(asked, fake.requests, strict=True) if request.segments[-1] == sha256(LAYER)]
        assert layer[0] == ("localhost", None)
        assert [pair for pair in layer if pair[0] == "127.0.0.1"] == [("127.0.0.1", f"bytes={HALF}-")]

    with_fake(instance, work, make=Cut, mirrors=("127.0.0.1:{port}=http://localhost:{port}",))


def test_what_had_all_come_is_not_asked_for(instance: Instance):
    async def work(fake: Cut, store: ImageStore) -> None:
        (await break_off(fake, store)).write_bytes(LAYER)
        await pulled(fake, store)

    with_fake(instance, work, make=Cut)


@pytest.mark.parametrize(
    ("left", "ranges"),
    [(bytes(HALF), [f"bytes={HALF}-", None]), (bytes(len(LAYER)), [None]), (LAYER + b"more", [None])],
    ids=["zeros", "whole", "too long"],
)
def test_what_was_spoilt_is_fetched_anew(instance: Instance, left: bytes, ranges: list[str | None]):
    async def work(fake: Cut, store: ImageStore) -> None:
        (await break_off(fake, store)).write_bytes(left)
        await pulled(fake, store, *ranges)

    with_fake(instance, work, make=Cut)


def test_after_a_kill(instance: Instance, tmp_path: Path):
    async def work(fake: Cut, store: ImageStore) -> None:
        fake.stall = asyncio.Event()
        home = tmp_path / "killed"
        killed = Instance(home)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", PULL, home, f"{fake.address}/app")
        try:
            async with asyncio.timeout(30):
                # What has come is written when a megabyte is together.
                while not any(path.stat().st_size >= 1 << 20 for path in (killed.content / "partial").glob("*")):
                    assert process.returncode is None
                    await asyncio.sleep(0.01)
        finally:
            process.kill()
            await process.wait()
        fake.stall.set()
        fake.broken = False
        fake.requests.clear()
        after = ImageStore(killed)
        after.open()
        try:
            (path,) = partial(after)
            await pulled(fake, after, f"bytes={path.stat().st_size}-")
        finally:
            after.close()

    with_fake(instance, work, make=Cut)


def test_two_pulls_at_once_do_not_share_a_file(instance: Instance):
    async def work(fake: Cut, store: ImageStore) -> None:
        await break_off(fake, store)
        gate, begun = asyncio.Event(), asyncio.Event()

        async def gated() -> AsyncIterator[bytes]:
            begun.set()
            yield LAYER[HALF:-10]
            await gate.wait()
            yield LAYER[-10:]

        def answer(request: Request) -> Response | None:
            if request.segments[-1] != sha256(LAYER) or begun.is_set():
                return None
            return Response(206, [("Content-Range", f"bytes {HALF}-{len(LAYER) - 1}/{len(LAYER)}")], gated())

        fake.answer = answer
        one = asyncio.create_task(store.pull(f"{fake.address}/app:1"))
        async with asyncio.timeout(20):
            await begun.wait()
        assert store.blobs.partials.clear() == 0
        other = await store.pull(f"{fake.address}/app:2")
        gate.set()
        assert (await one).id == other.id
        assert fake.asked() == [f"bytes={HALF}-", None]
        assert partial(store) == []
        assert await store.check() == []

    with_fake(instance, work, make=Cut)


@pytest.mark.parametrize(("diff_id", "tar", "error"), [(sha256(b""), TAR, DigestMismatch), (None, b"x" * (4 << 20), InvalidInput)])
def test_what_is_refused_is_not_kept(instance: Instance, diff_id: str | None, tar: bytes, error: type[Exception]):
    """Neither the layer that is no tar, nor its neighbour that was still on its way."""

    async def work(fake: Cut, store: ImageStore) -> None:
        bad = gzip.compress(tar, 0)
        config = json.dumps({**json.loads(CONFIG), "rootfs": {"diff_ids": [diff_id or sha256(tar), sha256(TAR)]}}).encode()
        layers = [pointer(blob, f"{OCI_LAYER}+gzip") for blob in (bad, LAYER)]
        fake.manifest = manifest(config=pointer(config, OCI_CONFIG), layers=layers)
        fake.blobs |= {sha256(config): config, sha256(bad): bad}
        fake.stall = asyncio.Event()
        with pytest.raises(error):
            await store.pull(f"{fake.address}/app")
        fake.stall.set()
        assert leaves_nothing(store)

    with_fake(instance, work, make=Cut)


def test_df_counts_it_and_prune_gives_it_back(instance: Instance):
    async def work(fake: Cut, store: ImageStore) -> None:
        before = store.disk_usage()["LayersSize"]
        await break_off(fake, store)
        assert store.disk_usage()["LayersSize"] - before == pytest.approx(HALF, rel=0.01)
        assert (await store.prune())["SpaceReclaimed"] == pytest.approx(HALF, rel=0.01)
        assert partial(store) == []
        assert store.disk_usage()["LayersSize"] == pytest.approx(before, rel=0.01)

    with_fake(instance, work, make=Cut)


def test_it_is_kept_for_a_day(instance: Instance):
    async def work(fake: Cut, store: ImageStore) -> None:
        path = await break_off(fake, store)
        os.utime(path, (0, time.time() - KEPT_S + 60))
        await store.collect()
        assert path.exists()
        os.utime(path, (0, time.time() - KEPT_S - 60))
        await store.collect()
        assert not path.exists()
        path.write_bytes(b"of another layer")
        stray = path.rename(path.with_name("0" * 64))
        os.utime(stray, (0, time.time() - KEPT_S - 60))
        await pulled(fake, store, None)

    with_fake(instance, work, make=Cut)
