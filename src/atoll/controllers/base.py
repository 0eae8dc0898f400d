"""What every controller is: informers that fill a queue of keys, and workers that reconcile one key at a time.

A controller asks for its informers in `__init__`, with a handler that enqueues; `reconcile(key)` then looks at the full state, never at
the event. An error puts the key back with backoff. `run` owns all tasks of the controller, each with a name.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from atoll.client.factory import InformerFactory
from atoll.client.informer import Handler, Informer
from atoll.client.objects import Object, controller_of, key_of, make_key, namespace_of
from atoll.client.protocol import Client, is_conflict
from atoll.client.recorder import Recorder
from atoll.client.resources import COLLECTED, Resource
from atoll.client.workqueue import WorkQueue
from atoll.errors import AtollError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Aggregated:
    """What other API servers serve in namespaces: the resources whose objects can be deleted, and the group versions whose servers do not
    say.
    """

    resources: tuple[Resource, ...] = ()
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """What the controllers must be told; the rest they read from the API.

    `root_ca` is the PEM bundle published in every namespace; "" publishes none. `local_path_root` is where the local-path provisioner
    makes volumes; None turns it off. `resources` answers which resources exist now, for the garbage collector and for the deletion of
    namespaces; `aggregated` those of aggregated API servers, for the latter. `signing_authority` is the certificate and key that approved
    certificate requests are signed with; None signs none.
    """

    root_ca: str = ""
    local_path_root: Path | None = None
    resources: Callable[[], Sequence[Resource]] = lambda: COLLECTED
    aggregated: Callable[[], Aggregated] = Aggregated
    node_monitor_grace_s: float = 50.0  # kube-controller-manager's default since 1.32
    terminated_pod_threshold: int = 12_500
    signing_authority: tuple[Path, Path] | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What is passed to each controller. `clock` is the wall clock in seconds, `jitter` a number in [0, 1)."""

    client: Client
    informers: InformerFactory
    config: Config = field(default_factory=Config)
    clock: Callable[[], float] = time.time
    jitter: Callable[[], float] = random.random


class Controller(ABC):
    """`name` as in kube-controller-manager's --controllers; `workers` bounds how many keys are in work at once."""

    name: ClassVar[str]
    component: ClassVar[str]  # the source of its events
    workers: ClassVar[int] = 5

    def __init__(self, context: Context) -> None:
        self.client = context.client
        self.config = context.config
        self.clock = context.clock
        self.jitter = context.jitter
        self.queue = WorkQueue()
        self.recorder = Recorder(context.client, getattr(self, "component", self.name), clock=context.clock)
        self._factory = context.informers
        self._informers: list[Informer] = []

    @abstractmethod
    async def reconcile(self, key: str) -> None:
        """Brings the world nearer to what the object under `key` asks for. Called again after an error."""

    def informer(self, resource: Resource, *indexes: str, handler: Handler | None = None) -> Informer:
        """A shared informer this controller waits for before it works."""
        informer = self._factory.informer(resource, *indexes)
        self._informers.append(informer)
        if handler is not None:
            informer.add_handler(handler)
        return informer

    def enqueue(self, old: Object | None, new: Object | None) -> None:
        """A handler: the object itself is the key."""
        obj = new or old
        assert obj is not None
        self.queue.add(key_of(obj))

    def enqueue_controller(self, kind: str, obj: Object) -> str | None:
        """Enqueues the controlling owner of that kind, and returns its key."""
        reference = controller_of(obj)
        if reference is None or reference.get("kind") != kind:
            return None
        key = make_key(namespace_of(obj), reference["name"])
        self.queue.add(key)
        return key

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.recorder.run(), name=f"{self.name}/events")
                for informer in self._informers:
                    await informer.wait_synced()
                await self.start(group)
                for number in range(self.workers):
                    group.create_task(self._work(), name=f"{self.name}/{number}")
        finally:
            self.queue.close()

    async def start(self, group: asyncio.TaskGroup) -> None:  # noqa: B027 (most controllers have nothing to add)
        """For tasks of a controller beyond its workers; the informers have synced."""

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self.reconcile(key)
            except (AtollError, OSError) as error:
                level = logging.DEBUG if is_conflict(error) else logging.WARNING
                logger.log(level, "%s: %s: %s", self.name, key, error)
                self.queue.add_rate_limited(key)
            except Exception:
                logger.exception("%s: %s", self.name, key)
                self.queue.add_rate_limited(key)
            else:
                self.queue.forget(key)
            finally:
                self.queue.done(key)
