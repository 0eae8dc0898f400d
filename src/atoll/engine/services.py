"""What the parts of the engine share: the managers of the floor below, the containers, the events."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atoll.config import Instance
from atoll.engine.containers.foresight import Foresight
from atoll.engine.containers.networking import Networker
from atoll.engine.containers.record import Container
from atoll.engine.containers.registry import Registry
from atoll.engine.events import Events
from atoll.engine.settings import Settings
from atoll.images import ImageStore
from atoll.network import Networks
from atoll.runtime import Runtime
from atoll.runtime.trust import Trust
from atoll.volumes import Volumes


@dataclass(frozen=True, slots=True)
class Services:
    instance: Instance
    settings: Settings
    trust: Trust
    events: Events
    registry: Registry
    runtime: Runtime
    images: ImageStore
    networks: Networks
    volumes: Volumes
    networker: Networker
    foresight: Foresight

    @property
    def init_layer(self) -> Path:
        """The layer every container has above its image's: see containers.layers."""
        return self.instance.content / "init"

    def container_event(self, container: Container, action: str, **attributes: str) -> None:
        self.events.publish("container", action, container.id, container.attributes(**attributes))
