"""ConfigMaps and Secrets that pods here refer to, kept true by a watch of each: a node sees what its pods need and nothing else.

The first reader fetches and starts the watch; it ends when the last pod that asked has gone. Who waits for an object that is not there is
woken when it comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from atoll.client.informer import Informer
from atoll.client.objects import Object, make_key
from atoll.client.protocol import Client
from atoll.client.resources import Resource
from atoll.errors import Unavailable

SYNC_S = 10.0  # how long the first list of one object may take

Key = tuple[Resource, str, str]


@dataclass(slots=True)
class _Watched:
    informer: Informer
    task: asyncio.Task[None]
    users: dict[str, Callable[[], None]] = field(default_factory=dict)


class WatchedObjects:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._watched: dict[Key, _Watched] = {}

    async def get(self, resource: Resource, namespace: str, name: str, user: str, changed: Callable[[], None]) -> Object | None:
        """The object, None where there is none; `changed` is called from now on when it comes, changes or goes, until `release(user)`."""
        key = (resource, namespace, name)
        watched = self._watched.get(key)
        if watched is None:
            informer = Informer(self._client, resource, namespace, field_selector=f"metadata.name={name}")
            task = asyncio.create_task(informer.run(), name=f"watch {resource.plural} {namespace}/{name}")
            watched = self._watched[key] = _Watched(informer, task)
            informer.add_handler(lambda _old, _new: self._tell(key))
        watched.users[user] = changed
        try:
            async with asyncio.timeout(SYNC_S):
                await watched.informer.wait_synced()
        except TimeoutError:
            raise Unavailable(f"{resource.kind.lower()} {namespace}/{name} could not be read: the API server does not answer") from None
        return watched.informer.get(make_key(namespace, name))

    def _tell(self, key: Key) -> None:
        watched = self._watched.get(key)
        if watched is not None and watched.informer.has_synced:
            for changed in list(watched.users.values()):
                changed()

    def release(self, user: str) -> None:
        for key, watched in list(self._watched.items()):
            watched.users.pop(user, None)
            if not watched.users:
                watched.task.cancel()
                del self._watched[key]

    async def close(self) -> None:
        tasks = [watched.task for watched in self._watched.values()]
        self._watched.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
