"""POST /containers/create: an image and a body become a row, a directory and volumes.

The name is taken first; the row is written when everything is there. A crash in between leaves a directory that no row names, which
recovery takes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from atoll.engine import runtimes
from atoll.engine.containers import mounts, networking, userns
from atoll.engine.containers.bundle import own_namespaces, security_options
from atoll.engine.containers.config import NETWORKING, container_config, host_config, read
from atoll.engine.containers.record import Container, Record, Status
from atoll.engine.containers.rootfs import ImageRoot
from atoll.engine.containers.signals import parse_signal
from atoll.engine.services import Services
from atoll.errors import InvalidInput, NotFound
from atoll.images import Image, Platform
from atoll.runtime.spec import capability_set

MIN_HEALTH_NS = 1_000_000  # a millisecond


class Creator:
    def __init__(self, services: Services, clock: Callable[[], int] = time.time_ns) -> None:
        self._services = services
        self._clock = clock

    async def create(
        self, name: str | None, body: Mapping[str, Any], platform: Platform | None = None, *, trusted: bool = True
    ) -> tuple[Container, list[str]]:
        """The container and warnings. `trusted`: asked for in process. Raises NotFound (the image), Conflict (the name), InvalidInput."""
        services = self._services
        config, host = container_config(body), host_config(body.get("HostConfig"))
        if config["NetworkDisabled"]:
            host["NetworkMode"] = "none"
        given = read(body.get("NetworkingConfig") or {}, NETWORKING, "NetworkingConfig.")["EndpointsConfig"]
        if not config["Image"]:
            raise InvalidInput("no image specified: the field Image is empty")
        image = services.images.resolve(config["Image"])
        if platform is not None:
            check_platform(config["Image"], image, platform)
        image_name = config["Image"]
        adopt(config, image)
        self._check(config, host, given, trusted=trusted)
        container_id = services.foresight.take(own_namespaces(host))
        config["Hostname"] = config["Hostname"] or self._hostname(host, container_id)
        record = Record(
            id=container_id,
            name=services.registry.claim(name, container_id),
            created_ns=self._clock(),
            image=image.id,
            image_name=image_name,
            config=config,
            host=host,
            networking=self._networks(host, given),
            status=Status.CREATING,
        )
        return await self._realise(record, image), warnings(host)

    def _check(self, config: dict[str, Any], host: dict[str, Any], given: Any, *, trusted: bool) -> None:
        if not (config["Entrypoint"] or config["Cmd"]):
            raise InvalidInput("no command specified")
        if config["Hostname"] and host["UTSMode"] == "host":
            raise InvalidInput("conflicting options: hostname and the UTS mode")
        if config["StopSignal"]:
            parse_signal(config["StopSignal"])
        networking.check(config, host, given, trusted=trusted)
        userns.check(host["UsernsMode"], trusted=trusted)
        runtimes.find(self._services.settings, host["Runtime"])
        capability_set(host["CapAdd"] or (), host["CapDrop"] or (), privileged=host["Privileged"])
        security_options(host["SecurityOpt"] or ())

    def _hostname(self, host: Mapping[str, Any], container_id: str) -> str:
        mode = host["NetworkMode"]
        if mode.startswith(networking.CONTAINER):
            with contextlib.suppress(NotFound):  # which is for the start to say: clients take it here for the image's
                return str(self._services.registry.get(mode.removeprefix(networking.CONTAINER)).record.config["Hostname"])
        return os.uname().nodename if "host" in {mode, host["UTSMode"]} else container_id[:12]

    def _networks(self, host: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        """By name, whatever the client called them; one that does not exist is left for start to refuse, as Docker does."""
        wanted = {}
        for reference, settings in networking.wanted_networks(host, given).items():
            try:
                wanted[self._services.networks.get(reference).name] = settings
            except NotFound:
                wanted[reference] = settings
        return wanted

    async def _realise(self, record: Record, image: Image) -> Container:
        services = self._services
        new_volumes: list[str] = []
        try:
            points = [self._with_image(point) for point in mounts.plan(record.config, record.host, self._mounts_of)]
            container = services.registry.add(record)
        except BaseException:
            services.registry.release(record.name, record.id)
            raise
        try:
            container.paths.root.mkdir(parents=True, mode=0o710)
            container.paths.upper.mkdir(mode=0o755)
            container.paths.work.mkdir(mode=0o700)
            made, new_volumes = mounts.realise(points, services.volumes)
            to_fill = [point for point in made if point.type == "volume" and not point.no_copy]
            if to_fill:
                await asyncio.to_thread(fill_volumes, services, image, to_fill)
            container.save(status=Status.CREATED, mounts=tuple(point.row() for point in made))
        except BaseException:
            services.registry.forget(container)
            shutil.rmtree(container.paths.root, ignore_errors=True)
            for volume in new_volumes:
                services.volumes.remove(volume, force=True)
            raise
        for volume in new_volumes:
            services.events.publish("volume", "create", volume, {"driver": "local"})
        services.container_event(container, "create")
        return container

    def _with_image(self, point: mounts.MountPoint) -> mounts.MountPoint:
        if point.type != "image":
            return point
        image = self._services.images.find(point.source)
        if image is None:
            raise InvalidInput(f'invalid mount config for type "image": No such image: {point.source}: pull it first')
        return replace(point, image=image.id)

    def _mounts_of(self, name: str) -> list[mounts.MountPoint]:
        return [mounts.MountPoint.from_row(row) for row in self._services.registry.get(name).record.mounts]


def adopt(config: dict[str, Any], image: Image) -> None:
    """Fills `config`, in place, with what the image says and the user does not: Docker's rules of merging."""
    base = image.runtime_config
    if config["Entrypoint"] is None:
        # An entrypoint of the user's own drops the image's command with it.
        config["Entrypoint"] = base.get("Entrypoint") or None
        if not config["Cmd"]:
            config["Cmd"] = base.get("Cmd") or None
    elif config["Entrypoint"] in ([], [""]):
        config["Entrypoint"] = None
    # A name without "=" stays: it takes the variable away when the container starts.
    own = config["Env"] or []
    named = {item.partition("=")[0] for item in own}
    config["Env"] = [*own, *(item for item in base.get("Env") or [] if item.partition("=")[0] not in named)]
    for name in ("WorkingDir", "User", "StopSignal"):
        config[name] = config[name] or base.get(name) or ""
    config["Labels"] = {**(base.get("Labels") or {}), **config["Labels"]}
    for name in ("ExposedPorts", "Volumes"):
        merged = {**{key: {} for key in base.get(name) or ()}, **(config[name] or {})}
        config[name] = merged or None
    for name in ("StopTimeout", "Shell", "OnBuild"):
        config[name] = config[name] if config[name] is not None else base.get(name)
    config["Healthcheck"] = merge_health(base.get("Healthcheck"), config["Healthcheck"])


def check_platform(name: str, image: Image, wanted: Platform) -> None:
    """Raises NotFound where the image is of another platform: clients then pull the one that is wanted."""
    if not image.platform.serves(wanted):
        raise NotFound(
            f"image with reference {name} was found but does not match the specified platform: wanted {wanted}, actual: {image.platform}"
        )


def merge_health(base: dict[str, Any] | None, own: dict[str, Any] | None) -> dict[str, Any] | None:
    """The user's health check, each of its empty fields taken from the image's."""
    if not own:
        return base
    merged = {**(base or {}), **{name: value for name, value in own.items() if value}}
    for name in ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"):
        value = merged.get(name, 0)
        if not isinstance(value, int) or value < 0 or (name != "Retries" and 0 < value < MIN_HEALTH_NS):
            raise InvalidInput(f"{name} in Healthcheck cannot be negative or less than 1ms")
    test = merged.get("Test")
    if test is not None and not (isinstance(test, list) and all(isinstance(word, str) for word in test)):
        raise InvalidInput("invalid JSON: field Healthcheck.Test: must be a list of strings")
    if test and test[0] not in {"NONE", "CMD", "CMD-SHELL"}:
        raise InvalidInput(f"Unknown healthcheck type: {test[0]}")
    return merged or None


def warnings(host: Mapping[str, Any]) -> list[str]:
    found = []
    if host["NetworkMode"] == "host" and (host["PortBindings"] or host["PublishAllPorts"]):
        found.append("Published ports are discarded when using host network mode")
    return found


def fill_volumes(services: Services, image: Image, points: list[mounts.MountPoint]) -> None:
    """Copies what the image has at each mount point into its volume, where that is empty. Runs in a thread.

    Raises InvalidInput where the image has a file at such a point.
    """
    from atoll.volumes import copy_up

    with ImageRoot(services.images, image) as root:
        for point in points:
            if point.subpath:
                continue
            with root.directory(point.destination) as source:
                if source is not None:
                    copy_up(source, services.volumes.path(point.name))
