"""Caches of other builders that a build may take steps from (--cache-from): asked after the builder's own, their layers fetched when used.

What is taken from one is known here from then on, as if it had been done here. A cache whose layers cannot be had costs only time: that is
told, and the step is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from atoll.build.cacheconfig import CacheConfig, Packed
from atoll.errors import AtollError
from atoll.images import ImageStore, Layer, Progress
from atoll.images.pull import Source

Fetching = Callable[[], AbstractContextManager[Progress]]
"""Tells that layers are being fetched, and of the error that ends it."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A step somebody else has done."""

    instruction: str
    created: str
    layer: Layer | None


class CacheImport(Protocol):
    """One of a build's."""

    async def find(self, key: str, below: str | None) -> Imported | None:
        """The step of that key, done above the layer BELOW; None where it is not there, or cannot be had."""
        ...


class ImportedCache:
    """CONFIG, whose layers SOURCE has; None where IMAGES has them all."""

    def __init__(self, config: CacheConfig, images: ImageStore, source: Source | None, fetching: Fetching) -> None:
        self._config = config
        self._images = images
        self._source = source
        self._told = fetching
        self._fetching = asyncio.Lock()  # stages side by side want the same layers

    async def find(self, key: str, below: str | None) -> Imported | None:
        record = self._config.records.get(key)
        if record is None:
            return None
        if record.layer is None:
            return Imported(record.instruction, record.created, None)
        stack = self._stack(record.layer)
        if (stack[-2].chain if len(stack) > 1 else None) != below:
            return None  # it was not made on this
        try:
            layer = await self._layer(stack)
        except AtollError:  # told already
            return None
        return Imported(record.instruction, record.created, layer) if layer is not None else None

    def _stack(self, number: int) -> list[Packed]:
        """A layer and those beneath it, from the bottom up."""
        found = []
        while number >= 0:
            found.append(self._config.layers[number])
            number = found[-1].parent
        return found[::-1]

    async def _layer(self, stack: Sequence[Packed]) -> Layer | None:
        async with self._fetching:
            here = self._images.snapshots.find(stack[-1].chain)
            if here is not None or self._source is None:
                return here
            blobs, diff_ids = [one.blob for one in stack], [one.diff_id for one in stack]
            with self._told() as progress:
                return (await self._images.remote.fetch_layers(self._source, blobs, diff_ids, progress))[-1]
