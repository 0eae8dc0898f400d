"""A registry that misbehaves: cuts, lies, redirects, asks for tokens, is too busy. What is refused is never half stored."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import gzip
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from atoll.config import Instance
from atoll.errors import AtollError, DigestMismatch, InvalidInput, NotFound, NotSupported, Unauthenticated, Unavailable
from atoll.http import Headers, Request, Response, Server, json_response
from atoll.images import ImageStore
from atoll.images import registry_session as registry_module
from atoll.images.model import OCI_CONFIG, OCI_INDEX, OCI_LAYER, sha256
from atoll.images.registry_auth import Credentials, challenges
from atoll.images.registry_session import RegistrySettings
from fake_registry import CONFIG, LAYER, Fake, cut, leaves_nothing, manifest, pointer, with_fake
from image_harness import tar_of


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "BACKOFF_S", 0.001)


def test_a_well_served_image(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        image = await store.pull(f"{fake.address}/app")
        assert (image.layers[0].directory / "f").stat().st_size == 1_024_000

    with_fake(instance, work)


def test_a60_a_cut_transfer_goes_on_by_range(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        cuts = [int(len(LAYER) * 0.4), int(len(LAYER) * 0.99)]

        def answer(request: Request) -> Response | None:
            if request.segments[-1] == sha256(LAYER) and cuts:
                at = int((request.headers.get("range") or "bytes=0-")[6:-1])
                end = cuts.pop(0)
                fields = [("Content-Length", str(len(LAYER) - at))]
                if at:
                    fields.append(("Content-Range", f"bytes {at}-{len(LAYER) - 1}/{len(LAYER)}"))
                return Response(206 if at else 200, fields, cut(LAYER[at:], end - at))
            return None

        fake.answer = answer
        await store.pull(f"{fake.address}/app")
        ranges = fake.ranges()
        assert ranges[0] is None
        assert len(ranges) == 3
        assert all(one is not None for one in ranges[1:])

    with_fake(instance, work)


def half_of(layer: bytes, then: Callable[[], Awaitable[None]]) -> AsyncIterator[bytes]:
    async def body() -> AsyncIterator[bytes]:
        yield layer[: len(layer) // 2]
        await then()
        yield layer[len(layer) // 2 :]

    return body()


def test_a_layer_is_unpacked_while_it_arrives(instance: Instance):
    tar = tar_of(("first", b"1" * 3_000_000), ("second", bytes(3_000_000)))
    layer = gzip.compress(tar, 0)

    async def work(fake: Fake, store: ImageStore) -> None:
        async def until_the_first_is_there() -> None:
            for _ in range(1000):
                if list((store._root / "tmp").glob("layer-*/first")):
                    return
                await asyncio.sleep(0.01)
            pytest.fail("nothing was unpacked before the whole layer had come")

        config = json.dumps({**json.loads(CONFIG), "rootfs": {"diff_ids": [sha256(tar)]}}).encode()
        fake.manifest = manifest(config=pointer(config, OCI_CONFIG), layers=[pointer(layer, f"{OCI_LAYER}+gzip")])
        fake.blobs = {sha256(config): config}
        fake.answer = lambda request: (
            Response(200, [], half_of(layer, until_the_first_is_there)) if request.segments[-1] == sha256(layer) else None
        )
        image = await store.pull(f"{fake.address}/app:1")
        assert (image.layers[0].directory / "second").stat().st_size == 3_000_000

    with_fake(instance, work)


def test_a_cancelled_pull_leaves_nothing(instance: Instance):
    async def work(fake: Fake, store: ImageStore) -> None:
        begun = asyncio.Event()

        async def never() -> None:
            begun.set()
            await asyncio.Event().wait()

        fake.answer = lambda request: Response(200, [], half_of(LAYER, never)) if request.segments[-1] == sha256(LAYER) else None
        pull = asyncio.create_task(store.pull(f"{fake.address}/app:1"))
        await begun.wait()
        await asyncio.sleep(0.05)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        assert leaves_nothing(store)
        assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]

    with_fake(instance, work)


def test_a60_a_registry_without_range_begins_again(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        times = iter([True])

        def answer(request: Request) -> Response | None:
            if request.segments[-1] == sha256(LAYER):
                if next(times, False):
                    return Response(200, [("Content-Length", str(len(LAYER)))], cut(LAYER, 300_000))
                return Response(200, [], LAYER)
            return None

        fake.answer = answer
        await store.pull(f"{fake.address}/app")

    with_fake(instance, work)


def test_a60_cut_for_ever_ends(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        def answer(request: Request) -> Response | None:
            if request.segments[-1] == sha256(LAYER):
                return Response(200, [("Content-Length", str(len(LAYER)))], cut(LAYER, 100))
            return None

        fake.answer = answer
        with pytest.raises(Unavailable, match=f"broke off layer {sha256(LAYER)} 5 times"):
            await store.pull(f"{fake.address}/app")
        assert leaves_nothing(store)

    with_fake(instance, work)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (LAYER[:-1] + b"\1", "in truth"),
        (LAYER + b"x", "more than the"),
        (LAYER[:-1], "broke off|in truth|has .* bytes where"),
    ],
)
def test_a60_content_that_is_not_its_digest(instance: Instance, blob: bytes, message: str):
    async def work(fake: Fake, store: ImageStore):
        fake.blobs[sha256(LAYER)] = blob
        with pytest.raises(AtollError, match=message):
            await store.pull(f"{fake.address}/app")
        assert leaves_nothing(store)
        fake.blobs[sha256(LAYER)] = LAYER
        assert await store.pull(f"{fake.address}/app")

    with_fake(instance, work)


def test_a60_a_manifest_that_is_not_its_digest(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        with pytest.raises(DigestMismatch, match=r"manifest sha256:0+ of .* is in truth"):
            await store.pull(f"{fake.address}/app@sha256:{'0' * 64}")
        fake.answer = lambda request: (
            Response(200, [("Docker-Content-Digest", "sha256:" + "1" * 64)], fake.manifest) if "manifests" in request.segments else None
        )
        with pytest.raises(DigestMismatch, match="in truth"):
            await store.pull(f"{fake.address}/app")

    with_fake(instance, work)


def test_a14_a_layer_that_unpacks_to_something_else(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        other = gzip.compress(tar_of(("g", b"other")))
        fake.blobs[sha256(other)] = other
        fake.manifest = manifest(layers=[pointer(other, f"{OCI_LAYER}+gzip")])
        with pytest.raises(DigestMismatch, match="unpacks to content of"):
            await store.pull(f"{fake.address}/app")
        assert leaves_nothing(store)

    with_fake(instance, work)


def test_a1_a_climbing_layer_names_the_entry(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        tar = tar_of(("../../etc/cron.d/x", b"x"))
        config = json.dumps({"rootfs": {"diff_ids": [sha256(tar)]}}).encode()
        fake.blobs |= {sha256(tar): tar, sha256(config): config}
        fake.manifest = manifest(config=pointer(config, OCI_CONFIG), layers=[pointer(tar, OCI_LAYER)])
        with pytest.raises(InvalidInput, match=r"archive entry \.\./\.\./etc/cron\.d/x: its name climbs out of the root"):
            await store.pull(f"{fake.address}/app")
        assert leaves_nothing(store)

    with_fake(instance, work)


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        (b"not json", InvalidInput, "is not JSON"),
        (b"[]", InvalidInput, "not a JSON object"),
        (b'{"schemaVersion": 1, "history": []}', NotSupported, "schema 1"),
        (manifest(layers=[{**pointer(LAYER, OCI_LAYER), "urls": ["http://169.254.169.254/x"]}]), NotSupported, "foreign address"),
        (manifest(layers=[{**pointer(LAYER, OCI_LAYER), "digest": "sha256:../../x"}]), InvalidInput, "no sha256 digest"),
        (manifest(layers=[{**pointer(LAYER, OCI_LAYER), "size": -1}]), InvalidInput, "the size -1"),
        (manifest(layers=[{**pointer(LAYER, OCI_LAYER), "size": 10**30}]), InvalidInput, "the size 1"),
        (manifest(layers=[pointer(LAYER, OCI_LAYER)] * 600), InvalidInput, "at most 500 layers"),
        (manifest(layers=[]), InvalidInput, "is no container image"),
    ],
)
def test_hostile_manifests(instance: Instance, document: bytes, error: type[Exception], message: str):
    async def work(fake: Fake, store: ImageStore):
        fake.manifest = document
        with pytest.raises(error, match=message):
            await store.pull(f"{fake.address}/app")
        assert leaves_nothing(store)

    with_fake(instance, work)


def test_a62_indexes_without_end(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        depth = 0

        def answer(request: Request) -> Response | None:
            nonlocal depth
            if "manifests" not in request.segments:
                return None
            depth += 1
            documents = [b"{}"]
            for _ in range(10):
                documents.append(json.dumps({"mediaType": OCI_INDEX, "manifests": [pointer(documents[-1], OCI_INDEX)]}).encode())
            return Response(200, [("Content-Type", OCI_INDEX)], documents[-depth])

        fake.answer = answer
        with pytest.raises(InvalidInput, match="too deeply"):
            await store.pull(f"{fake.address}/app")
        assert depth < 6

    with_fake(instance, work)


def test_a64_too_busy_waits_as_told_and_gives_up(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        left = 2

        def answer(request: Request) -> Response | None:
            nonlocal left
            if "manifests" in request.segments and left:
                left -= 1
                return Response(429, [("Retry-After", "0")], b"")
            return None

        fake.answer = answer
        await store.pull(f"{fake.address}/app")
        fake.answer = lambda request: Response(503, [], b"down") if "manifests" in request.segments else None
        before = len(fake.requests)
        with pytest.raises(Unavailable, match="answered 503"):
            await store.pull(f"{fake.address}/app")
        assert len(fake.requests) - before <= 7

    with_fake(instance, work)


def test_a64_a_401_loop_ends(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        fake.answer = lambda request: Response(401, [("WWW-Authenticate", 'Basic realm="x"')], b"")
        with pytest.raises(Unauthenticated, match="incorrect username or password"):
            await store.pull(f"{fake.address}/app", auth={"username": "a", "password": "b"})
        assert len(fake.requests) < 6

    with_fake(instance, work)


def token_server(fake: Fake, password: str) -> Callable[[Request], Response | None]:
    """The token protocol: /token wants Basic, /v2/ wants its token."""

    def answer(request: Request) -> Response | None:
        authorization = request.headers.get("authorization", "")
        if request.segments == ("token",):
            if password and authorization != "Basic " + base64.b64encode(f"ann:{password}".encode()).decode():
                return json_response({"details": "incorrect"}, 401)
            return json_response({"token": f"t-{request.query.get('scope', '')}", "expires_in": 300})
        if not authorization.startswith("Bearer t-"):
            challenge = f'Bearer realm="http://{fake.address}/token",service="fake, inc",scope="repository:app:pull"'
            return Response(401, [("WWW-Authenticate", challenge)], b"")
        return None

    return answer


def test_bearer_tokens(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        fake.answer = token_server(fake, "secret")
        await store.pull(f"{fake.address}/app", auth={"username": "ann", "password": "secret"})
        [asked] = [request for request in fake.requests if request.segments == ("token",)]
        assert (asked.query.get("service"), asked.query.get("scope")) == ("fake, inc", "repository:app:pull")
        with pytest.raises(Unauthenticated, match="incorrect username or password"):
            await store.pull(f"{fake.address}/app", auth={"username": "ann", "password": "wrong"})

    with_fake(instance, work)


def test_anonymous_tokens(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        fake.answer = token_server(fake, "")
        await store.pull(f"{fake.address}/app")

    with_fake(instance, work)


def test_credentials_stay_with_their_origin(instance: Instance):
    """Blobs redirect to a storage server, as every large registry's do; it must not see the authorization."""

    async def work(fake: Fake, store: ImageStore):
        seen: list[str | None] = []

        async def storage(request: Request) -> Response:
            seen.append(request.headers.get("authorization"))
            return Response(200, [], fake.blobs[request.segments[-1]])

        other = Server(storage)
        port = await other.start_tcp("127.0.0.1", 0)
        token = token_server(fake, "")

        def answer(request: Request) -> Response | None:
            if "blobs" in request.segments and request.headers.get("authorization"):
                return Response(307, [("Location", f"http://127.0.0.1:{port}/{request.segments[-1]}")], b"")
            return token(request)

        fake.answer = answer
        await store.pull(f"{fake.address}/app", auth={"username": "ann", "password": "secret"})
        assert seen == [None, None]
        await other.close()

    with_fake(instance, work)


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/v2/app/blobs/again"])
def test_redirects_to_nowhere(instance: Instance, where: str):
    async def work(fake: Fake, store: ImageStore):
        fake.answer = lambda request: Response(302, [("Location", where)], b"") if "blobs" in request.segments else None
        with pytest.raises(Unavailable, match="redirects"):
            await store.pull(f"{fake.address}/app")
        assert leaves_nothing(store)

    with_fake(instance, work)


def test_docker_hub_by_a_mirror(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        def answer(request: Request) -> Response | None:
            if request.segments[:3] == ("v2", "library", "app"):
                assert request.headers.get("authorization") is None
                return Response(200, [], fake.manifest if "manifests" in request.segments else fake.blobs[request.segments[-1]])
            return None

        fake.answer = answer
        image = await store.pull("app", auth={"username": "ann", "password": "secret"})
        assert image.repo_tags == ("app:latest",)

    with_fake(instance, work, mirrors=["http://127.0.0.1:{port}"])


def test_unreachable_docker_hub_says_what_to_do(instance: Instance, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry_module, "HUB", "127.0.0.1:1")

    async def work(fake: Fake, store: ImageStore):
        with pytest.raises(Unavailable, match=r"Docker Hub does not answer.*atoll image bootstrap.*ATOLL_REGISTRY_MIRRORS"):
            await store.pull("debian")
        seen: list[dict[str, Any]] = []
        image = await store.pull("hello-world", progress=seen.append)
        assert image.repo_tags == ("hello-world:latest",)
        assert "built-in hello-world" in seen[-1]["status"]
        with pytest.raises(Unavailable):
            await store.pull("hello-world:other")

    with_fake(instance, work)


def test_an_unknown_manifest_in_the_registrys_words(instance: Instance):
    async def work(fake: Fake, store: ImageStore):
        with pytest.raises(NotFound, match=r"manifest for .*/other:latest not found: manifest unknown: manifest unknown"):
            await store.pull(f"{fake.address}/other")

    with_fake(instance, work)


def test_challenges_are_read():
    [bearer, basic] = challenges(['Basic realm="a"', 'Bearer realm="https://x/token?y=1",service="s, t",scope=a'])
    assert bearer.parameters == {"realm": "https://x/token?y=1", "service": "s, t", "scope": "a"}
    assert basic.scheme == "basic"
    assert challenges(["Negotiate", ""]) == []


def test_credentials_from_docker():
    both = base64.b64encode(b"ann:se:cret").decode()
    assert Credentials.from_auth({"auth": both}) == Credentials("ann", "se:cret")
    assert Credentials.from_auth(None) == Credentials()
    with pytest.raises(InvalidInput, match="auth is not base64"):
        Credentials.from_auth({"auth": "%%%"})


@pytest.mark.parametrize(
    ("domain", "insecure"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.3.2.1:5000", True),
        ("[::1]:5000", True),
        ("reg.lan:5000", True),
        ("other.lan", False),
        ("10.0.0.1", False),
    ],
)
def test_who_may_speak_plainly(domain: str, insecure: bool):
    assert RegistrySettings(insecure=("reg.lan:5000",)).is_insecure(domain) is insecure


@pytest.mark.parametrize(
    ("value", "wait"), [("7", 7.0), ("9999", 30.0), ("", 0.5), ("soon", 0.5), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("far", 30.0)]
)
def test_retry_after_as_seconds_or_a_date(value: str, wait: float):
    if value == "far":
        value = email.utils.formatdate(time.time() + 9999, usegmt=True)
    assert registry_module._retry_after(Headers([("Retry-After", value)]), 0.5) == wait
