"""What a container has changed over its image (`docker diff`), its root as a tar (export), and both as an image (commit)."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atoll import units
from atoll.engine.containers.lifecycle import Lifecycle
from atoll.engine.containers.record import Container
from atoll.engine.instructions import apply_changes
from atoll.engine.services import Services
from atoll.errors import Conflict
from atoll.images import Image
from atoll.images.bridge import produce
from atoll.images.pack import pack_tree
from atoll.images.treewalk import OPAQUE, is_whiteout
from atoll.kernel.detached import open_overlay

MODIFIED, ADDED, DELETED = 0, 1, 2
# What the engine mounts on or makes for a container is no change of its own; nor is what stands in the init layer.
OURS = ("dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", ".dockerenv")


class Changes:
    def __init__(self, services: Services, lifecycle: Lifecycle) -> None:
        self._services = services
        self._lifecycle = lifecycle

    async def diff(self, container: Container) -> list[dict[str, Any]]:
        """[{"Path", "Kind"}] with 0 modified, 1 added, 2 deleted, in the order of a walk."""
        lowers = self._lowers(container)
        return await asyncio.to_thread(lambda: [{"Path": path, "Kind": kind} for path, kind in walk(container.paths.upper, lowers)])

    def _lowers(self, container: Container) -> tuple[Path, ...]:
        services = self._services
        return (services.init_layer, *services.images.snapshots.overlay_lowers(services.images.resolve(container.record.image)))

    @contextmanager
    def _layers_root(self, container: Container) -> Iterator[int]:
        """The container's own layers merged, without what is mounted on them."""
        fd = open_overlay((container.paths.upper, *self._lowers(container)))
        try:
            yield fd
        finally:
            os.close(fd)

    def export(self, container: Container) -> AsyncIterator[bytes]:
        """A tar of the whole root."""
        if container.removed:
            raise Conflict(f"container {container.id} is being removed")

        def pack() -> Iterator[bytes]:
            with self._layers_root(container) as root:
                yield from pack_tree(root)

        self._services.container_event(container, "export")
        return produce(pack())

    async def commit(
        self,
        container: Container,
        *,
        target: str | None,
        comment: str = "",
        author: str = "",
        pause: bool = True,
        changes: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> Image:
        """An image of the container's layers and configuration. A running container stands still meanwhile, unless `pause` is False."""
        services = self._services
        base = services.images.resolve(container.record.image)
        merged = apply_changes(image_config(container, config or {}), changes)
        frozen = pause and container.is_up and container.status == "running"
        if frozen:
            await self._lifecycle.pause(container)
        try:
            with services.images.working():
                return await self._commit(container, base, merged, target, comment, author)
        finally:
            if frozen:
                await self._lifecycle.resume(container)

    async def _commit(
        self, container: Container, base: Image, config: dict[str, Any], target: str | None, comment: str, author: str
    ) -> Image:
        services = self._services
        layer = await services.images.snapshots.commit(container.paths.upper, base.chain_id, ignore=OURS)
        now = units.timestamp()
        command = [*(container.record.config["Entrypoint"] or ()), *(container.record.config["Cmd"] or ())]
        history = [
            *(base.config.get("history") or ()),
            {"created": now, "created_by": " ".join(command), "comment": comment, "author": author},
        ]
        image = services.images.create_image(
            {
                **{name: base.config[name] for name in ("architecture", "os", "variant") if name in base.config},
                "created": now,
                "author": author,
                "config": config,
                "history": [{name: value for name, value in entry.items() if value} for entry in history],
            },
            [*base.layers, layer],
            tags=[target] if target else (),
            parent=base.id,
        )
        await services.images.settle()
        services.container_event(container, "commit", comment=comment, imageID=image.id, imageRef=target or "")
        return image


def image_config(container: Container, override: Mapping[str, Any]) -> dict[str, Any]:
    """The container's configuration as an image's: what belongs to one run (hostname, attached streams) left out."""
    names = (
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "Healthcheck",
        "OnBuild",
        "Shell",
    )
    config = {name: container.record.config[name] for name in names if container.record.config[name]}
    return config | {name: value for name, value in override.items() if name in names and value}


def walk(upper: Path, lowers: Sequence[Path]) -> Iterator[tuple[str, int]]:
    """Changes of `upper` over `lowers`; a directory is listed before what is in it, modified where anything in it is."""
    below = open_overlay(lowers) if lowers else -1
    try:
        for path, kind in _walk(upper, "", below):
            if path.lstrip("/") not in OURS:
                yield path, kind
    finally:
        if below >= 0:
            os.close(below)


def _walk(directory: Path, prefix: str, below: int) -> Iterator[tuple[str, int]]:
    with os.scandir(directory) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = f"{prefix}/{entry.name}"
        info = entry.stat(follow_symlinks=False)
        known = _exists(below, path)
        if is_whiteout(info):
            if known:
                yield path, DELETED
            continue
        yield path, MODIFIED if known else ADDED
        if stat.S_ISDIR(info.st_mode):
            if known and _is_opaque(entry.path):
                yield from _hidden(below, path, Path(entry.path))
            yield from _walk(Path(entry.path), path, below)


def _exists(below: int, path: str) -> bool:
    try:
        os.stat(path.lstrip("/"), dir_fd=below, follow_symlinks=False)
    except OSError:
        return False
    return True


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _hidden(below: int, path: str, directory: Path) -> Iterator[tuple[str, int]]:
    """What an opaque directory hides: deleted, since it was removed and made anew."""
    fd = os.open(path.lstrip("/"), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=below)
    try:
        for name in sorted(os.listdir(fd)):
            if not os.path.lexists(directory / name):
                yield f"{path}/{name}", DELETED
    finally:
        os.close(fd)
