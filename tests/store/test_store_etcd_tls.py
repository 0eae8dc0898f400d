"""An etcd that speaks TLS and lets in only those it knows by their certificates."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from atoll.cluster import lifecycle
from atoll.cluster.controlplane import api_config
from atoll.cluster.settings import ClusterSettings
from atoll.config import Instance
from atoll.errors import Conflict, InvalidInput, Unavailable
from atoll.store import open_store
from atoll.store.gateway import EtcdTls
from etcd_harness import ETCD, etcd
from tls_files import Authority

pytestmark = pytest.mark.skipif(ETCD is None, reason="needs Debian's etcd-server and etcd-client")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("tls"))
    return authority.sign("etcd", "127.0.0.1", client=True), authority.sign("apiserver", client=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory, files):
    with etcd(tmp_path_factory.mktemp("etcd"), *files) as running:
        yield running


@pytest.fixture
def tls(files):
    _, client = files
    return EtcdTls(client / "ca.pem", client / "cert.pem", client / "key.pem")


def opened(location, tls=None):
    async def scenario():
        store = await open_store(location, compact_interval=None, tls=tls)
        try:
            seen = []
            store.subscribe(seen.extend)
            revision = await store.write("/registry/tls/a", b"1", expected=0)
            await store.write("/registry/tls/a", None, expected=revision)
            return [change.value for change in seen]
        finally:
            await store.close()

    return asyncio.run(scenario())


def test_what_is_written_is_there_and_announced(server, tls):
    assert opened(server.location, tls) == [b"1", None]
    assert "/registry/tls" not in server.ctl("get", "--prefix", "/registry/", "--keys-only")


def test_both_sides_want_to_know_each_other(server, tls, tmp_path):
    with pytest.raises(Unavailable, match=r"cannot trust https://127\.0\.0\.1"):
        opened(server.location)
    with pytest.raises(Unavailable, match=r"https://127\.0\.0\.1"):
        opened(server.location, replace(tls, certfile=None, keyfile=None))
    stranger = Authority(tmp_path / "other").sign("stranger", client=True)
    with pytest.raises(Unavailable, match=r"https://127\.0\.0\.1"):
        opened(server.location, replace(tls, certfile=stranger / "cert.pem", keyfile=stranger / "key.pem"))


def test_files_that_are_none(server, tls, tmp_path):
    for wrong, told in (
        (replace(tls, cafile=tmp_path / "none"), "authority .*none cannot be read: No such file"),
        (replace(tls, keyfile=None), "give both"),
        (replace(tls, keyfile=tls.cafile), "cannot be used"),
        (replace(tls, certfile=tmp_path / "none"), "none with key .* cannot be used: No such file"),
    ):
        with pytest.raises(InvalidInput, match=told):
            opened(server.location, wrong)
    with pytest.raises(InvalidInput, match="write etcds://"):
        opened(server.location.replace("etcds", "etcd"), tls)


def test_a_cluster_keeps_where_its_certificates_are(server, tls, tmp_path, monkeypatch):
    instance = Instance(tmp_path / "home")
    monkeypatch.chdir(tls.cafile.parent)
    given = lifecycle.EtcdFiles("ca.pem", "cert.pem", "key.pem")
    with pytest.raises(InvalidInput, match="--store etcds://host:port"):
        asyncio.run(lifecycle._settled(instance, 1, None, given))
    with pytest.raises(Unavailable):
        asyncio.run(lifecycle._settled(instance, 1, server.location, lifecycle.NO_FILES))
    assert not instance.cluster.exists()
    settings = asyncio.run(lifecycle._settled(instance, 1, server.location, given))
    assert settings.etcd_tls == tls
    assert api_config(instance, ClusterSettings.load(instance)).etcd_tls == tls
    assert asyncio.run(lifecycle._settled(instance, 1, None, lifecycle.NO_FILES)) == settings
    with pytest.raises(InvalidInput, match="give both"):
        asyncio.run(lifecycle._settled(instance, 1, None, lifecycle.EtcdFiles("ca.pem", "cert.pem")))
    with pytest.raises(Conflict, match="keeps its objects in etcds://"):
        asyncio.run(lifecycle._settled(instance, 1, "etcd://127.0.0.1:1", given))
