"""A revisioned key-value store with compare-and-swap, history and watch: what the API server keeps its objects in.

`Store` is the seam; `sqlite` is the default behind it. Every write gets the next number of one global revision; a write is acknowledged
only when it is on disk, and announced to subscribers, in revision order, before its caller is told.
"""

from __future__ import annotations

from atoll.store.base import Change, Compacted, CompareFailed, Past, Record, Store
from atoll.store.sqlite import SqliteStore

__all__ = ["Change", "Compacted", "CompareFailed", "Past", "Record", "SqliteStore", "Store"]
