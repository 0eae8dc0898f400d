"""Every test of the contract runs on each store."""

from __future__ import annotations

import itertools

import pytest

from atoll.store import open_store
from etcd_harness import ETCD, etcd


@pytest.fixture(scope="module")
def etcd_server(tmp_path_factory):
    if ETCD is None:
        pytest.skip("needs Debian's etcd-server and etcd-client")
    with etcd(tmp_path_factory.mktemp("etcd")) as server:
        yield server


class Place:
    """Where a test keeps its keys: `await place.open()` gives the store, again and again the same; `place.prefix` is nobody else's."""

    _numbers = itertools.count(1)

    def __init__(self, location):
        self.location = location
        self.prefix = f"/registry/t{next(self._numbers)}/"

    async def open(self):
        return await open_store(self.location, compact_interval=None)


@pytest.fixture(params=["sqlite", "etcd"])
def place(request, tmp_path):
    if request.param == "sqlite":
        return Place(tmp_path / "s.db")
    return Place(request.getfixturevalue("etcd_server").location)
