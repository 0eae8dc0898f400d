"""--cache-to and --cache-from: what one builder has done, another with nothing of it need not do again."""

import base64
import json
import re

import pytest

from atoll.build.buildkit import messages
from atoll.build.buildkit.board import Board
from atoll.build.buildkit.cacheexport import read_exports
from atoll.build.cacheconfig import read, read_inline
from atoll.errors import InvalidInput, NotSupported
from atoll.images import Descriptor
from buildx_harness import context
from registry_harness import AtollRegistry

DOCKERFILE = (
    "FROM busybox AS made\nRUN echo made > /made\nFROM busybox\nENV A=1\nWORKDIR /w\nCOPY f .\n"
    "RUN echo ran > /ran\nCOPY --from=made /made /copied\n"
)
SHOWN = 5


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    served = AtollRegistry(tmp_path_factory.mktemp("registry"))
    yield served
    served.stop()


@pytest.fixture
def forget(buildx, engine):
    """All that this builder knows goes, and the image with it."""

    def run():
        engine.docker("rmi", "-f", "built", check=False)
        buildx("prune", "-f", "-a")

    run()
    return run


@pytest.fixture
def place(tmp_path):
    return str(context(tmp_path / "c", DOCKERFILE, {"f": "file"}))


def cached(told):
    return len(re.findall(r"^#\d+ CACHED$", told, re.MULTILINE))


def test_a_registry_keeps_a_cache(buildx, registry, forget, place):
    reference = f"{registry.address}/cache/app:1"
    told = buildx("build", "-t", "built", "--cache-to", f"type=registry,ref={reference},mode=max", place).stderr
    assert "exporting cache to registry" in told
    image = buildx.inspect("built")["Id"]
    forget()
    told = buildx("build", "-t", "built", "--cache-from", f"type=registry,ref={reference}", place).stderr
    assert cached(told) == SHOWN, told
    assert buildx.inspect("built")["Id"] == image
    assert buildx.run("built", "cat", "/w/f", "/ran", "/copied") == "fileran\nmade\n"
    assert cached(buildx("build", place).stderr) == SHOWN  # it is this builder's own now


def test_without_mode_max_stages_copied_from_are_done_again(buildx, registry, forget, place):
    reference = f"{registry.address}/cache/min"
    buildx("build", "--cache-to", f"type=registry,ref={reference}", place)
    forget()
    told = buildx("build", "--cache-from", reference, place).stderr
    assert cached(told) == SHOWN - 1, told


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("", "application/vnd.oci.image.manifest.v1+json"),
        (",image-manifest=false", "application/vnd.oci.image.index.v1+json"),
        (",oci-mediatypes=false", "application/vnd.docker.distribution.manifest.list.v2+json"),
    ],
)
def test_a_directory_of_the_client_keeps_a_cache(buildx, forget, place, tmp_path, form, kind):
    store = tmp_path / "store"
    for _ in range(2):  # the second finds the blobs there
        buildx("build", "-t", "built", "--cache-to", f"type=local,dest={store},mode=max{form}", place)
    (manifest,) = json.loads((store / "index.json").read_text())["manifests"]
    assert manifest["mediaType"] == kind
    assert (store / "blobs" / manifest["digest"].replace(":", "/")).exists()
    forget()
    told = buildx("build", "-t", "built", "--cache-from", f"type=local,src={store}", place).stderr
    assert cached(told) == SHOWN, told
    assert buildx.run("built", "cat", "/ran") == "ran\n"


@pytest.mark.parametrize("flags", [("--cache-to", "type=inline"), ("--build-arg", "BUILDKIT_INLINE_CACHE=1")])
def test_an_image_keeps_its_own_cache(buildx, registry, engine, forget, tmp_path, flags):
    place = str(context(tmp_path / "c", "FROM busybox\nENV A=1\nRUN echo ran > /ran\nRUN echo more > /more\n"))
    name = f"{registry.address}/inline/app:1"
    buildx("build", "-t", name, "--push", *flags, place)
    image = buildx.inspect(name)["Id"]
    buildx("prune", "-f", "-a")
    assert cached(buildx("build", "--cache-from", name, place).stderr) == 2  # from the image that is here
    engine.docker("rmi", name)
    forget()
    told = buildx("build", "-t", name, "--cache-from", name, *flags, place).stderr
    assert cached(told) == 2, told
    assert buildx.inspect(name)["Id"] == image
    engine.docker("rmi", name)


def test_what_changed_is_done_again(buildx, registry, forget, tmp_path):
    place = context(tmp_path / "c", "FROM busybox\nRUN echo one\nCOPY f /f\nRUN cat /f\n", {"f": "before"})
    reference = f"{registry.address}/cache/changed"
    buildx("build", "--cache-to", f"type=registry,ref={reference},mode=max", str(place))
    forget()
    (place / "f").write_text("after")
    told = buildx("build", "--cache-from", reference, str(place)).stderr
    assert cached(told) == 1
    assert " after" in told
    assert cached(buildx("build", "--no-cache", "--cache-from", reference, str(place)).stderr) == 0


def test_a_cache_that_is_of_no_use_is_told_and_left(buildx, registry, forget, place):
    config = json.dumps({"layers": [], "records": [{"digest": "sha256:" + "0" * 64}]}).encode()
    manifest = registry.image("cache/foreign", config=config)
    manifest["config"]["mediaType"] = "application/vnd.buildkit.cacheconfig.v0"
    assert registry.push_manifest("cache/foreign", "latest", manifest).status == 201
    broken = {**manifest, "config": {**manifest["config"], "digest": registry.push_blob("cache/broken", b"[]"), "size": 2}}
    assert registry.push_manifest("cache/broken", "latest", broken).status == 201
    told = buildx(
        *("build", "--cache-from", f"{registry.address}/cache/foreign", "--cache-from", f"{registry.address}/cache/broken"),
        *("--cache-from", f"{registry.address}/cache/missing", "--cache-from", "busybox", place),
    ).stderr
    assert "written by another builder" in told
    assert "the cache configuration is not a JSON object" in told
    assert f"importing cache manifest from {registry.address}/cache/missing" in told
    assert cached(told) == 0


@pytest.mark.parametrize("kind", ["gha", "s3", "azblob"])
def test_places_that_are_not_there_say_so(kind):
    """buildx drops gha and s3 itself where its environment has no credentials for them; others send them."""
    entry = messages.CacheOptionsEntry(Type=kind, Attrs={"token": "hidden"})
    with pytest.raises(NotSupported, match=f"^cache export to type={kind} is not supported: type=registry, type=local"):
        read_exports([entry], Board("ref"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("type=azblob,account_url=https://x,secret_access_key=hidden", "cache export to type=azblob is not supported"),
        ("type=registry,ref=localhost:1/x,mode=most", "it is min or max"),
        ("type=registry,ref=localhost:1/x,compression=zstd", "compression=zstd is not supported"),
    ],
)
def test_exports_that_are_not_there_say_so(buildx, place, words, message):
    done = buildx("build", "--cache-to", words, place, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "hidden" not in done.stderr
    assert buildx("build", "--cache-to", f"{words},ignore-error=true", place).returncode == 0


OURS = {"digest": "sha256:k", "dev.atoll.step.v1": {"instruction": "RUN x", "created": "2026-01-02T03:04:05Z"}}
BLOB = Descriptor("", "sha256:" + "b" * 64, 3)
DIFF = "sha256:" + "d" * 64


@pytest.mark.parametrize(
    "value",
    [
        {"records": 5},
        {"records": [OURS], "layers": 5},
        {"records": [OURS], "layers": [5]},
        {"records": [OURS], "layers": [{"blob": DIFF, "parent": -1}]},
        {"records": [OURS], "layers": [{"blob": BLOB.digest, "parent": 0}]},
        {"records": [{**OURS, "layers": [{"layer": 1}]}], "layers": [{"blob": BLOB.digest, "parent": -1}]},
        {"records": [{**OURS, "layers": 5}]},
        {"records": [{**OURS, "dev.atoll.step.v1": {"created": "yesterday"}}]},
        {"records": [{**OURS, "dev.atoll.step.v1": 1}]},
    ],
)
def test_configurations_that_cannot_be_read(value):
    with pytest.raises((InvalidInput, NotSupported)):
        read(value, {BLOB.digest: (BLOB, DIFF)})
    with pytest.raises((InvalidInput, NotSupported)):
        read({"records": [OURS], "layers": [{"blob": BLOB.digest, "parent": -1}]}, {BLOB.digest: (BLOB, "")})


@pytest.mark.parametrize("text", [None, 5, "?", base64.b64encode(b"[").decode(), base64.b64encode(b"{}").decode()])
def test_inline_caches_that_cannot_be_read(text):
    with pytest.raises((InvalidInput, NotSupported)):
        read_inline({"moby.buildkit.cache.v0": text, "rootfs": {"diff_ids": [DIFF]}}, [BLOB])


def test_a_registry_that_does_not_answer_costs_time_only(buildx, place):
    told = buildx("build", "--cache-from", "type=registry,ref=localhost:1/x", place).stderr
    assert "importing cache manifest from localhost:1/x" in told
    assert "ERROR" in told


def test_a_cache_that_cannot_be_written_fails_the_build(buildx, place):
    words = "type=registry,ref=localhost:1/x"
    assert buildx("build", "--cache-to", words, place, check=False).returncode == 1
    assert "exporting cache to registry" in buildx("build", "--cache-to", f"{words},ignore-error=true", place).stderr
