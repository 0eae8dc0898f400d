"""A revisioned key-value store with compare-and-swap, history and watch: what the API server keeps its objects in.

`Store` is the seam; `sqlite` is the default behind it, `etcd` the choice for several API servers. Every write gets the next number of one
global revision; a write is acknowledged only when it is on disk, and announced to subscribers, in revision order, before its caller is
told.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from atoll.store.base import COMPACT_INTERVAL_S, Change, Compacted, CompareFailed, Past, Record, Store
from atoll.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from atoll.store.gateway import EtcdTls

__all__ = ["Change", "Compacted", "CompareFailed", "Past", "Record", "SqliteStore", "Store", "open_store"]


async def open_store(location: Path | str, *, compact_interval: float | None = COMPACT_INTERVAL_S, tls: EtcdTls | None = None) -> Store:
    """The store at a path, or at etcd://host:port; at etcds://host:port with the certificates of `tls`.

    Raises InUse, InvalidInput, Unavailable.
    """
    if isinstance(location, Path):
        return await SqliteStore.open(location, compact_interval=compact_interval)
    from atoll.store.etcd import EtcdStore

    return await EtcdStore.open(location, compact_interval=compact_interval, tls=tls)
