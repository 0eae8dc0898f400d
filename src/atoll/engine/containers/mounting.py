"""What is mounted for a container as long as it runs: its volumes, and the missing directories of -v; told as events of the volumes."""

from __future__ import annotations

import contextlib
from pathlib import Path

from atoll.engine.containers.mounts import MountPoint
from atoll.engine.containers.record import Container
from atoll.engine.services import Services
from atoll.errors import InvalidInput, NotFound


def mount_volumes(services: Services, container: Container) -> dict[str, Path]:
    """The directories of the container's volumes, by name. Raises InvalidInput where a bind's source has gone."""
    points = _points(container)
    for point in points:
        if point.type == "bind" and not Path(point.source).exists():
            if not point.make_source:
                raise InvalidInput(f'invalid mount config for type "bind": bind source path does not exist: {point.source}')
            Path(point.source).mkdir(parents=True, exist_ok=True)
    return {point.name: services.volumes.mount(point.name) for point in points if point.type == "volume"}


def tell_mounted(services: Services, container: Container) -> None:
    for point in _points(container):
        if point.type == "volume":
            how = {"destination": point.destination, "propagation": point.propagation, "read/write": str(point.rw).lower()}
            services.events.publish("volume", "mount", point.name, {"container": container.id, "driver": point.driver, **how})


def unmount_volumes(services: Services, container: Container) -> None:
    """Gives back the file systems that volumes with options brought, where no other container runs with them."""
    names = {point.name for point in _points(container) if point.type == "volume"}
    for other in services.registry:
        if other is not container and other.is_up:
            names -= {row["name"] for row in other.record.mounts}
    for name in names:
        with contextlib.suppress(NotFound):
            services.volumes.unmount(name)


def tell_unmounted(services: Services, container: Container) -> None:
    for point in _points(container):
        if point.type == "volume":
            services.events.publish("volume", "unmount", point.name, {"container": container.id, "driver": point.driver})


def _points(container: Container) -> list[MountPoint]:
    return [MountPoint.from_row(row) for row in container.record.mounts]
