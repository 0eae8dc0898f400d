"""Bootstrapping: which suite and mirror, what is missing, and (on the road) a real Debian."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
from pathlib import Path

import pytest

from atoll.config import Instance
from atoll.errors import InvalidInput, NotSupported, Unavailable
from atoll.http import Request, Response, Server
from atoll.images import ImageStore, bootstrap, parse
from atoll.images.aptsources import DEBIAN, UBUNTU, Distribution, Source, sources


@pytest.mark.parametrize(
    ("name", "distribution", "suite", "slim"),
    [
        ("debian:bookworm", DEBIAN, "bookworm", False),
        ("debian:bookworm-slim", DEBIAN, "bookworm", True),
        ("debian:12", DEBIAN, "bookworm", False),
        ("debian:12.5-slim", DEBIAN, "bookworm", True),
        ("debian", DEBIAN, "trixie", False),
        ("debian:unstable", DEBIAN, "sid", False),
        ("localhost:5000/base/debian:bookworm", DEBIAN, "bookworm", False),
        ("ubuntu:22.04", UBUNTU, "jammy", False),
        ("ubuntu", UBUNTU, "noble", False),
        ("ubuntu:noble", UBUNTU, "noble", False),
    ],
)
def test_suites(name: str, distribution: Distribution, suite: str, slim: bool):
    assert bootstrap.suite_of(parse(name).with_default_tag()) == (distribution, suite, slim)


@pytest.mark.parametrize("name", ["ubuntu:22.04-slim", "ubuntu:bookworm", "debian:noble", "debian:nope", "debian:x86", "app"])
def test_what_is_neither(store: ImageStore, name: str):
    with pytest.raises(InvalidInput, match="only Debian and Ubuntu can be made from packages"):
        asyncio.run(store.bootstrap(name))


def test_bad_variant_and_package(store: ImageStore):
    with pytest.raises(InvalidInput, match="unknown variant"):
        asyncio.run(store.bootstrap(variant="huge"))
    for package in ("--hook=x", "a;b", "a b"):
        with pytest.raises(InvalidInput, match="is no package name"):
            asyncio.run(store.bootstrap(include=[package]))


def test_the_missing_tool_is_named(store: ImageStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotSupported, match=r"mmdebstrap is not installed.*apt-get install mmdebstrap"):
        asyncio.run(store.bootstrap())


def test_the_missing_keyring_is_named(store: ImageStore, monkeypatch: pytest.MonkeyPatch):
    ubuntu = dataclasses.replace(UBUNTU, keyring=Path("/nowhere/keyring.gpg"))
    monkeypatch.setattr(bootstrap, "DISTRIBUTIONS", (ubuntu,))
    with pytest.raises(NotSupported, match=r"/nowhere/keyring\.gpg is missing.*ubuntu-keyring"):
        asyncio.run(store.bootstrap("ubuntu:24.04"))


def test_the_unreachable_mirror_is_named(store: ImageStore):
    with pytest.raises(Unavailable, match=r"cannot reach the mirror http://127\.0\.0\.1:1/debian.*--mirror"):
        asyncio.run(store.bootstrap(mirror="http://127.0.0.1:1/debian"))


def serve(answer: Response, work) -> None:
    async def main():
        async def handle(request: Request) -> Response:
            return answer

        server = Server(handle)
        port = await server.start_tcp("127.0.0.1", 0)
        try:
            await work(f"http://127.0.0.1:{port}/debian")
        finally:
            await server.close()

    asyncio.run(main())


def test_a_mirror_without_the_suite(store: ImageStore):
    async def work(mirror: str):
        with pytest.raises(Unavailable, match=rf"the mirror has no {mirror}/dists/bookworm/Release \(status 404\)"):
            await store.bootstrap(mirror=mirror)

    serve(Response(404), work)


def test_an_unsigned_mirror_is_refused_by_apt_and_nothing_stays(store: ImageStore, monkeypatch: pytest.MonkeyPatch):
    async def work(mirror: str):
        monkeypatch.setattr(bootstrap, "sources", lambda _, suite, mirror: [Source(mirror, (suite,))])
        with pytest.raises(Unavailable, match=f"mmdebstrap could not install Debian bookworm from {mirror}: E:"):
            await store.bootstrap(mirror=mirror)
        assert store.all() == []
        assert not list((store._root / "tmp").iterdir())

    serve(Response(200, [], b"Origin: Debian\nSuite: bookworm\nDate: Sat, 10 Feb 2024 11:08:08 UTC\n"), work)


def test_the_hosts_own_mirror_is_used(tmp_path: Path):
    (tmp_path / "sources.list.d").mkdir()
    assert sources(DEBIAN, "bookworm", None, tmp_path)[0] == Source(DEBIAN.archive, ("bookworm", "bookworm-updates"))
    (tmp_path / "sources.list").write_text("# deb http://old/debian x\ndeb [signed-by=/k] http://one.lan/debian bookworm main\n")
    (tmp_path / "sources.list.d/a.sources").write_text(
        "Types: deb\nURIs: http://third.party/stuff\nSuites: x\n\n"
        "Types: deb deb-src\nURIs: http://two.lan/debian-security/\nSuites: bookworm-security\n\n"
        "Types: deb\nEnabled: no\nURIs: http://off.lan/debian\nSuites: bookworm\n"
    )
    assert [source.uri for source in sources(DEBIAN, "bookworm", None, tmp_path)] == [
        "http://one.lan/debian",
        "http://two.lan/debian-security",
    ]
    assert sources(DEBIAN, "bookworm", "http://mine/debian", tmp_path)[0].uri == "http://mine/debian"
    assert sources(DEBIAN, "sid", None, tmp_path) == [Source("http://one.lan/debian", ("sid",))]
    (tmp_path / "sources.list").write_text("deb http://u.lan/ubuntu noble-security main\ndeb http://m.lan/ubuntu/ noble main universe\n")
    assert [source.uri for source in sources(UBUNTU, "noble", None, tmp_path)] == ["http://m.lan/ubuntu", "http://u.lan/ubuntu"]
    assert "Components: main universe\nSigned-By: /usr/share/keyrings/ubuntu" in sources(UBUNTU, "noble", None, tmp_path)[0].stanza()


@pytest.mark.road
@pytest.mark.timeout(600)
def test_a_real_debian(store: ImageStore, instance: Instance):
    seen: list[dict[str, str]] = []
    image = asyncio.run(store.bootstrap("debian:bookworm-slim", progress=seen.append))
    root = image.layers[0].directory
    assert image.repo_tags == ("debian:bookworm-slim",)
    assert image.runtime_config["Cmd"] == ["bash"]
    assert "bookworm" in (root / "etc/apt/sources.list.d/debian.sources").read_text()
    assert list((root / "var/lib/apt/lists").glob("*Packages*")) == []
    assert not (root / "etc/apt/sources.list").exists()
    assert (root / "etc/resolv.conf").read_text() == ""
    ran = subprocess.run(
        ["chroot", root, "sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "bookworm"
    assert any("mmdebstrap" in message["status"] or "apt" in message["status"] for message in seen)
