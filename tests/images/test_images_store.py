"""The store: names, Docker's rules for removal, layers shared and given back, and what a crash leaves."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from atoll.config import Instance
from atoll.errors import Conflict, InvalidInput, NotFound
from atoll.images import ImageStore, ImageUser
from image_harness import collected, make_image, run, stream, tar_of

A, B, C = tar_of(("a", b"a" * 1000)), tar_of(("b", b"b" * 100)), tar_of(("c", b"c" * 10))


def in_use(store: ImageStore, instance: Instance, *users: ImageUser) -> ImageStore:
    """The same content with containers on it."""
    other = ImageStore(instance, users=lambda: iter(users))
    other.open()
    return other


def test_resolve_by_name_id_and_prefix(store: ImageStore):
    image = asyncio.run(make_image(store, "app", A))
    for name in ("app", "app:latest", "library/app", "docker.io/library/app:latest", image.id, image.id[7:], image.id[:20], image.short_id):
        assert store.resolve(name).id == image.id
    for name, shown in (("nope", "nope:latest"), ("app:2", "app:2"), ("a/b", "a/b:latest"), ("sha256:" + "0" * 64, "sha256:" + "0" * 64)):
        with pytest.raises(NotFound, match=f"No such image: {shown}"):
            store.resolve(name)
    with pytest.raises(InvalidInput, match="invalid reference format"):
        store.resolve("a b")
    assert store.find("nope") is None


def test_a_name_that_looks_like_an_id_is_a_name_first(store: ImageStore):
    image = asyncio.run(make_image(store, "app", A))
    other = asyncio.run(make_image(store, image.short_id[:4], B))
    assert store.resolve(image.short_id[:4]).id == other.id


@pytest.mark.parametrize("is_another_process", [False, True])
def test_a_name_that_moves_is_not_remembered(store: ImageStore, instance: Instance, *, is_another_process: bool):
    first = asyncio.run(make_image(store, "app", A))
    second = asyncio.run(make_image(store, "next", B))
    assert store.resolve("app").id == first.id
    assert store.resolve("app").repo_tags == ("app:latest",)
    mover = in_use(store, instance) if is_another_process else store
    mover.tag("next", "app")
    assert store.resolve("app").id == second.id
    assert store.resolve("next").repo_tags == ("app:latest", "next:latest")
    asyncio.run(mover.remove("app"))
    assert store.find("app") is None
    if is_another_process:
        mover.close()


def test_ambiguous_prefix(store: ImageStore):
    @run
    async def _():
        for number in range(40):
            await make_image(store, f"n{number}", Env=[f"N={number}"])

    by_digit = [image.id[7] for image in store.all()]
    digit = next(digit for digit in by_digit if by_digit.count(digit) > 1)
    with pytest.raises(NotFound, match="ambiguous"):
        store.resolve(digit)


def test_shared_layers_are_stored_once(store: ImageStore, instance: Instance):
    @run
    async def _():
        one = await make_image(store, "one", A, B)
        two = await make_image(store, "two", A, C)
        assert one.layers[0] == two.layers[0]
        assert len(list((instance.content / "l").iterdir())) == 3
        usage = store.disk_usage()
        assert usage["LayersSize"] >= 1110  # blocks and books as well
        assert {row["RepoTags"][0]: (row["Size"], row["SharedSize"]) for row in usage["Images"]} == {
            "one:latest": (1100, 1000),
            "two:latest": (1010, 1000),
        }
        records = await store.remove("one")
        assert records == [{"Untagged": "one:latest"}, {"Deleted": one.id}, {"Deleted": one.layers[1].chain_id}]
        assert store.snapshots.overlay_lowers(two)[1].joinpath("a").exists()
        await store.remove("two")
        assert list((instance.content / "l").iterdir()) == []
        assert list((instance.content / "blobs/sha256").iterdir()) == []
        assert list((instance.content / "tmp").iterdir()) == []


def test_layer_paths_are_short_enough_for_a_hundred_layers(store: ImageStore, instance: Instance):
    image = asyncio.run(make_image(store, "app", *[tar_of((f"f{n}", b"")) for n in range(100)]))
    [lower, *_] = store.snapshots.overlay_lowers(image)
    assert len(str(lower.relative_to(instance.home))) == len("content/l/01234567")
    with pytest.raises(InvalidInput, match="max depth exceeded"):
        asyncio.run(make_image(store, "deep", *[tar_of((f"f{n}", b"")) for n in range(130)]))


def test_same_config_and_layers_give_the_same_image(store: ImageStore):
    first = asyncio.run(make_image(store, "a", A, Env=["X=1"], Cmd=["sh"]))
    second = asyncio.run(make_image(store, "b", A, Cmd=["sh"], Env=["X=1"]))
    assert first.id == second.id
    assert store.resolve("a").repo_tags == ("a:latest", "b:latest")


def test_tagging_moves_names(store: ImageStore):
    @run
    async def _():
        one, two = await make_image(store, "app", A), await make_image(store, "other", B)
        store.tag("other", "app")
        assert store.resolve("app").id == two.id
        assert store.resolve(one.id).repo_tags == ()

    with pytest.raises(InvalidInput, match="digest reference"):
        store.tag("app", "x@sha256:" + "0" * 64)


# removal ---------------------------------------------------------------------------------------------------------------------------------
def test_removing_one_of_two_names_only_untags(store: ImageStore):
    @run
    async def _():
        image = await make_image(store, "one", A)
        store.tag("one", "two")
        assert await store.remove("one") == [{"Untagged": "one:latest"}]
        assert store.resolve("two").id == image.id


def test_removing_by_id_needs_force_for_names_in_two_repositories(store: ImageStore):
    @run
    async def _():
        image = await make_image(store, "one", A)
        store.tag("one", "two")
        with pytest.raises(Conflict, match=rf"unable to delete {image.short_id} \(must be forced\) - image is referenced in multiple"):
            await store.remove(image.id)
        records = await store.remove(image.short_id, force=True)
        assert {"Untagged": "one:latest"} in records
        assert {"Deleted": image.id} in records


def test_an_image_under_a_container(store: ImageStore, instance: Instance):
    @run
    async def _():
        image = await make_image(store, "app", A)
        running = in_use(store, instance, ImageUser("c" * 64, image.id, "app", True))
        expected = rf'unable to remove repository reference "app" \(must force\) - container {"c" * 12} is using its .* {image.short_id}'
        with pytest.raises(Conflict, match=expected):
            await running.remove("app")
        with pytest.raises(Conflict, match=r"cannot be forced\) - image is being used by running container c{12}"):
            await running.remove(image.id, force=True)
        assert await running.remove("app", force=True) == [{"Untagged": "app:latest"}]
        assert (await running.prune(dangling=True))["ImagesDeleted"] is None
        running.close()


def test_forced_out_from_under_a_stopped_container_the_layers_stay(store: ImageStore, instance: Instance):
    image = asyncio.run(make_image(store, "app", A))
    stopped = in_use(store, instance, ImageUser("c" * 64, image.id, "app", False))
    with pytest.raises(Conflict, match=r"must be forced\) - image is being used by stopped container"):
        asyncio.run(stopped.remove(image.short_id))
    asyncio.run(stopped.remove("app", force=True))
    assert stopped.find("app") is None
    assert stopped.find(image.short_id) is None
    assert stopped.all() == []
    assert stopped.resolve(image.id).layers == image.layers
    assert (image.layers[0].directory / "a").exists()
    assert stopped.snapshots.overlay_lowers(image.layers)
    stopped.close()
    # Without the container all of it goes at the next collection.
    asyncio.run(store.prune())
    assert not image.layers[0].directory.exists()


def test_images_with_children_stay(store: ImageStore):
    @run
    async def _():
        parent = await make_image(store, "parent", A)
        store.create_image({"config": {"Cmd": ["x"]}}, parent.layers, tags=["child"], parent=parent.id)
        with pytest.raises(Conflict, match="dependent child images"):
            await store.remove(parent.id, force=True)
        await store.remove("parent")
        assert len(store.all()) == 2
        await store.remove("child")
        assert store.all() == []


def test_prune(store: ImageStore):
    @run
    async def _():
        await make_image(store, "kept", A)
        old = await make_image(store, "moving", B)
        await make_image(store, "moving", C)
        pruned = await store.prune()
        assert pruned["ImagesDeleted"] == [{"Deleted": old.id}, {"Deleted": old.layers[0].chain_id}]
        assert pruned["SpaceReclaimed"] == 100
        assert len(store.all()) == 2
        assert len((await store.prune(dangling=False))["ImagesDeleted"]) == 6
        assert store.all() == []


def test_work_in_progress_holds_its_layers(store: ImageStore):
    @run
    async def _():
        await make_image(store, "other", B)
        with store.working():
            layer = await store.snapshots.unpack(iter([A]))
            await store.remove("other")
            assert layer.directory.exists()
            store.leases.acquire("build-cache/x", [layer.chain_id])
        await store.prune()
        assert layer.directory.exists()
        store.leases.release("build-cache/x")
        await store.prune()
        assert not layer.directory.exists()


# views -----------------------------------------------------------------------------------------------------------------------------------
def test_summaries_and_filters(store: ImageStore):
    @run
    async def _():
        await make_image(store, "app:1", A, Labels={"team": "x"})
        await make_image(store, "reg.io/a/b:2", B)
        store.create_image({"created": "2020-01-01T00:00:00Z", "config": {}}, store.resolve("app:1").layers, tags=["old"])

    def names(**filters: list[str]) -> list[str]:
        return sorted(row["RepoTags"][0] for row in store.summaries(filters=filters))

    assert names() == ["app:1", "old:latest", "reg.io/a/b:2"]
    assert names(reference=["app"]) == names(reference=["app:*"]) == names(label=["team=x"]) == ["app:1"]
    assert names(reference=["*"]) == ["app:1", "old:latest"]
    assert names(reference=["reg.io/*/*"]) == ["reg.io/a/b:2"]
    assert names(before=["app:1"]) == ["old:latest"]
    assert names(since=["old"]) == ["app:1", "reg.io/a/b:2"]
    assert names(until=["2021-01-01T00:00:00Z"]) == ["old:latest"]
    assert names(dangling=["true"]) == []
    with pytest.raises(InvalidInput, match="invalid filter 'colour'"):
        store.summaries(filters={"colour": ["red"]})


def test_inspect_and_history(store: ImageStore):
    image = asyncio.run(make_image(store, "app", A, B, Env=["A=1"], Cmd=["run"]))
    shown = store.inspect("app")
    assert shown["Id"] == image.id
    assert shown["Config"]["Cmd"] == ["run"]
    assert shown["RootFS"]["Layers"] == [layer.diff_id for layer in image.layers]
    assert shown["Size"] == 1100
    rows = store.history("app")
    assert [(row["Id"], row["Size"]) for row in rows] == [(image.id, 100), ("<missing>", 1000)]


# layers from uppers ----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("consume", [True, False])
def test_commit_of_a_real_overlays_upper(store: ImageStore, instance: Instance, consume: bool):
    base = asyncio.run(make_image(store, "base", tar_of(("etc/a", b"1"), ("etc/b", b"2"), ("var/x/y", b"3"))))
    work = instance.home / "work"
    for name in ("upper", "work", "merged"):
        (work / name).mkdir(parents=True)
    lower = ":".join(str(path) for path in store.snapshots.overlay_lowers(base))
    script = (
        f"mount -t overlay overlay -o lowerdir={lower},upperdir={work}/upper,workdir={work}/work {work}/merged && cd {work}/merged && "
        "rm etc/a && echo new > etc/c && rm -r var/x && mkdir var/x && echo 9 > var/x/z && touch etc/resolv.conf"
    )
    subprocess.run(["unshare", "-m", "sh", "-c", script], check=True)

    @run
    async def _():
        layer = await store.snapshots.commit(work / "upper", base.chain_id, consume=consume, ignore=("etc/resolv.conf", "etc/nothing"))
        assert (work / "upper").exists() is not consume
        image = store.create_image({}, [*base.layers, layer], tags=["next"])
        again = await store.snapshots.unpack(store.snapshots.tar(layer), base.chain_id)
        assert again == layer
        lowers = ":".join(str(path) for path in store.snapshots.overlay_lowers(image))
        command = f"mount -t overlay overlay -o lowerdir={lowers} {work}/merged && cd {work}/merged && find . -type f | sort"
        shown = await asyncio.to_thread(subprocess.run, ["unshare", "-m", "sh", "-c", command], check=True, capture_output=True)
        assert shown.stdout.split() == [b"./etc/b", b"./etc/c", b"./var/x/z"]


def test_a_changed_layer_is_noticed(store: ImageStore):
    image = asyncio.run(make_image(store, "app", A))
    (image.layers[0].directory / "a").write_bytes(b"tampered")

    async def read():
        async for _ in store.save(["app"]):
            pass

    with pytest.raises(Exception, match="was changed"):
        asyncio.run(read())


# crashes ---------------------------------------------------------------------------------------------------------------------------------
def test_what_a_crash_leaves_is_taken_away(store: ImageStore, instance: Instance):
    image = asyncio.run(make_image(store, "app", A))
    broken = asyncio.run(make_image(store, "broken", B))
    store.close()
    content = instance.content
    (content / "tmp/layer-x/deep").mkdir(parents=True)
    (content / "tmp/blob-x").write_bytes(b"half")
    (content / "l/deadbeef").mkdir()
    (content / "blobs/sha256" / ("0" * 64)).write_bytes(b"no row")
    (content / "blobs/sha256" / broken.id[7:]).write_bytes(b"")
    again = ImageStore(instance)
    again.open()
    assert [one.id for one in again.all()] == [image.id]
    assert list((content / "tmp").iterdir()) == []
    assert [path.name for path in (content / "l").iterdir()] == [image.layers[0].directory.name]
    assert [path.name for path in (content / "blobs/sha256").iterdir()] == [image.id[7:]]
    again.close()


def test_layers_not_yet_on_disk_do_not_survive_a_power_failure(store: ImageStore, instance: Instance):
    settled = asyncio.run(make_image(store, "settled", A))
    asyncio.run(store.settle())
    asyncio.run(make_image(store, "lost", B))
    store._database._run("UPDATE layers SET boot = 'the boot before' WHERE boot IS NOT NULL")
    store.close()
    again = ImageStore(instance)
    again.open()
    assert [one.id for one in again.all()] == [settled.id]
    again.close()


def test_layers_with_a_blob_are_unpacked_again_after_a_power_failure(store: ImageStore, instance: Instance):
    image = asyncio.run(make_image(store, "app", A, B))
    saved = asyncio.run(collected(store.save(["app"])))
    asyncio.run(store.remove("app"))
    asyncio.run(store.load(stream(saved)))
    assert len(store._database.unsynced_layers()) == 2  # their blobs are on disk
    for layer in image.layers:
        shutil.rmtree(layer.directory)
        layer.directory.mkdir()
    store._database._run("UPDATE layers SET boot = 'the boot before' WHERE boot IS NOT NULL")
    store.close()
    again = ImageStore(instance)
    again.open()
    assert [one.id for one in again.all()] == [image.id]
    assert [sorted(os.listdir(layer.directory)) for layer in again.resolve("app").layers] == [["a"], ["b"]]
    again._durability._sync_all(again._database.unsynced_layers())
    assert again._database.unsynced_layers() == []
    again.close()


def test_a_spoilt_blob_takes_its_image_with_it(store: ImageStore, instance: Instance):
    asyncio.run(make_image(store, "app", A))
    saved = asyncio.run(collected(store.save(["app"])))
    asyncio.run(store.remove("app"))
    asyncio.run(store.load(stream(saved)))
    blob = store._database.layer_blobs(store.resolve("app").layers[0].diff_id)[0]
    store.blobs.path(blob.digest).write_bytes(b"")
    store._database._run("UPDATE layers SET boot = 'the boot before' WHERE boot IS NOT NULL")
    store.close()
    again = ImageStore(instance)
    again.open()
    assert again.all() == []
    assert list((instance.content / "blobs/sha256").iterdir()) == []
    again.close()


def test_a_second_engine_on_the_content_cleans_nothing(store: ImageStore, instance: Instance):
    (instance.content / "tmp/layer-busy").mkdir()
    other = ImageStore(instance)
    other.open()
    assert (instance.content / "tmp/layer-busy").exists()
    other.close()


def test_import(store: ImageStore, tmp_path: Path):
    @run
    async def _():
        image = await store.import_tar(stream(tar_of(("bin/x", b"x"))), target="imported:1", message="hello", config={"Cmd": ["/bin/x"]})
        assert image.repo_tags == ("imported:1",)
        assert store.history("imported:1")[0]["Comment"] == "hello"
        with pytest.raises(InvalidInput, match=r"\.\./x: .*climbs out of the root"):
            await store.import_tar(stream(tar_of(("../x", b"x"))))
        with pytest.raises(InvalidInput, match="not a tar archive"):
            await store.import_tar(stream(b"y" * 5000))
        assert not os.listdir(store._scratch)


def test_removals_at_once_share_the_work(store: ImageStore):
    """Each sweeps away all that was forgotten; none stumbles over what another is just removing."""
    names = [f"app{number}" for number in range(8)]

    async def main():
        for name in names:
            await make_image(store, name, tar_of(*((f"{name}/{file}", b"x") for file in range(100))))
        await asyncio.gather(*(store.remove(name) for name in names))

    asyncio.run(main())
    assert store.all() == []
