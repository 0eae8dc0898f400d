"""Mirrors: asked first and without credentials; what they lack comes from the registry itself."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.config import Instance
from atoll.errors import InvalidInput
from atoll.http import Request, Response, json_response
from atoll.images import ImageStore, registry_session
from atoll.images.registry_session import RegistrySettings
from fake_registry import Fake, with_fake

ORIGIN = "registry.example.test"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_session, "BACKOFF_S", 0.001)


@pytest.mark.parametrize(
    ("text", "domain", "mirrors"),
    [
        ("https://a.lan, http://b.lan:5000", "docker.io", ("https://a.lan", "http://b.lan:5000")),
        ("https://a.lan", "quay.io", ()),
        ("quay.io=https://a.lan,docker.io=https://b.lan,quay.io=https://c.lan", "quay.io", ("https://a.lan", "https://c.lan")),
        ("127.0.0.1:5000=https://a.lan", "127.0.0.1:5000", ("https://a.lan",)),
        ("", "docker.io", ()),
    ],
)
def test_whose_mirrors(text: str, domain: str, mirrors: tuple[str, ...]):
    assert RegistrySettings.from_environment({"ATOLL_REGISTRY_MIRRORS": text}).mirrors_of(domain) == mirrors


@pytest.mark.parametrize("text", ["mirror.lan", "quay.io=mirror.lan", "=https://a.lan", "ftp://a.lan", "https://a.lan/path", "https://"])
def test_what_is_no_mirror(text: str):
    with pytest.raises(InvalidInput, match="is neither https://HOST nor REGISTRY=https://HOST"):
        RegistrySettings.from_environment({"ATOLL_REGISTRY_MIRRORS": text})


def test_a_mirror_of_any_registry(instance: Instance):
    async def work(fake: Fake, store: ImageStore) -> None:
        image = await store.pull(f"{ORIGIN}/app:1", auth={"username": "ann", "password": "secret"})
        assert image.repo_tags == (f"{ORIGIN}/app:1",)
        assert fake.ranges() == [None]
        assert [request.headers.get("authorization") for request in fake.requests] == [None] * len(fake.requests)

    with_fake(instance, work, mirrors=(f"{ORIGIN}=http://127.0.0.1:{{port}}",))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 503])
def test_what_a_mirror_refuses_comes_from_the_registry(instance: Instance, status: int):
    """Both are one server, which the mirror's users call by another name."""

    async def work(fake: Fake, store: ImageStore) -> None:
        asked: list[str] = []

        def answer(request: Request) -> Response | None:
            host = request.headers.get("host") or ""
            if request.segments[-2:-1] == ("manifests",):
                asked.append(host.partition(":")[0])
                if host.startswith("localhost"):
                    return json_response({"errors": [{"code": "ODD", "message": "no"}]}, status)
            return None

        fake.answer = answer
        told: list[dict[str, Any]] = []
        image = await store.pull(f"{fake.address}/app:1", progress=told.append)
        assert image.repo_tags == (f"{fake.address}/app:1",)
        assert list(dict.fromkeys(asked)) == ["localhost", "127.0.0.1"]
        assert [message["status"] for message in told if message["status"].startswith("Mirror http://localhost:")]

    with_fake(instance, work, mirrors=("127.0.0.1:{port}=http://localhost:{port}",))
