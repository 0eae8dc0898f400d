"""Where a build's RUN steps run: ordinary containers of the engine, so that limits, networks, seccomp and trust are theirs too.

A step's container is made from an image of the step's state that nobody else sees, carries a label, and is gone when the step is over;
what a crash leaves is removed at the next start.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from atoll.build.executor import Output, Ran, Step
from atoll.engine.containers.changes import OURS
from atoll.engine.containers.containers import Containers
from atoll.engine.platforms import platform_of
from atoll.engine.services import Services
from atoll.errors import NotFound
from atoll.images import Image, Progress, parse

registry_auths: ContextVar[Mapping[str, Any]] = ContextVar("registry_auths", default=MappingProxyType({}))
"""Credentials by registry domain, of the build that runs in this context: the builder's own words know nothing of registries."""

STEP_LABEL = "dev.atoll.build-step"
NOT_FOR_A_STEP = frozenset({"Cmd", "Entrypoint", "Healthcheck", "Volumes", "ExposedPorts", "OnBuild", "Labels"})


class BuildExecutor:
    """The builder's `Executor` over this engine."""

    def __init__(self, services: Services, containers: Containers) -> None:
        self._services = services
        self._containers = containers

    @asynccontextmanager
    async def run(self, step: Step, begun: Callable[[str], None], output: Output) -> AsyncIterator[Ran]:
        images = self._services.images
        config = {name: value for name, value in step.config.items() if name not in NOT_FOR_A_STEP}
        # The label keeps it from being any image a user has.
        image = images.create_image({"config": {**config, "Labels": {STEP_LABEL: "state"}}, "history": []}, step.layers)
        container = ""
        try:
            container = await self._containers.create(None, self._body(step, image))
            begun(container)
            await self._containers.start(container)
            async for _, data in self._containers.logs(container, follow=True):
                output(data)
            ended = await self._containers.wait(container)
            yield Ran(ended.code, self._containers.get(container).paths.upper, OURS)
        finally:
            if container:
                with contextlib.suppress(NotFound):
                    await self._containers.remove(container, force=True, volumes=True)
            await images.remove(image.id, force=True, prune=False)

    def _body(self, step: Step, image: Image) -> dict[str, Any]:
        return {
            "Image": image.id,
            "Cmd": list(step.command),
            "Env": list(step.environment),
            "Labels": {STEP_LABEL: "step"},
            "HostConfig": {"NetworkMode": step.network, **step.limits},
        }

    async def pull(self, reference: str, platform: str | None, progress: Progress) -> Image:
        auth = registry_auths.get().get(parse(reference).domain)
        return await self._services.images.pull(reference, auth=auth, platform=platform_of(platform), progress=progress)

    async def remove_leftovers(self) -> None:
        """Steps of a build that a crash cut short."""
        for row in self._containers.list(all=True, filters={"label": [STEP_LABEL]}):
            await self._containers.remove(row["Id"], force=True, volumes=True)
        for image in self._services.images.all():
            if STEP_LABEL in (image.runtime_config.get("Labels") or {}) and not image.repo_tags:
                await self._services.images.remove(image.id, force=True, prune=False)
