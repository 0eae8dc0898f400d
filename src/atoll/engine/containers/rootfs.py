"""The merged root of a container or an image, as a directory descriptor, for whoever looks in from outside.

A running container's is the one its processes see; a stopped one's is an overlay mounted nowhere, so that there is nothing to clean up.
Paths in it are always resolved by openat2 with the descriptor as their root. Where a path lies in a mount of a stopped container, the
mount's own source is the root, as it would be at run time.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from atoll.engine.containers.mounts import MountPoint
from atoll.engine.containers.record import Container
from atoll.engine.services import Services
from atoll.errors import Conflict, InvalidInput, NotFound
from atoll.images import Image, ImageStore
from atoll.kernel.detached import open_overlay
from atoll.kernel.openat2 import open_in_root

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class ImageRoot:
    """An image's root, read-only. A context manager."""

    def __init__(self, images: ImageStore, image: Image) -> None:
        self._lowers = images.snapshots.overlay_lowers(image)
        self._fd = -1

    def __enter__(self) -> Self:
        self._fd = open_overlay(self._lowers) if self._lowers else -1
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    @contextmanager
    def directory(self, path: str) -> Iterator[int | None]:
        """The directory at `path`; None where the image has nothing. Raises InvalidInput for a file."""
        try:
            fd = open_in_root(self._fd, path, _DIRECTORY) if self._fd >= 0 else None
        except NotADirectoryError:
            raise InvalidInput(f"cannot mount volume over existing file, file exists {path}") from None
        except OSError:
            fd = None
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)


@contextmanager
def container_root(services: Services, container: Container, *, writable: bool = False) -> Iterator[int]:
    """The container's root. Blocks for the time of a mount. Raises Conflict while the container is being removed."""
    if container.removed:
        raise Conflict(f"container {container.id} is being removed")
    if container.is_up:
        fd = os.open(f"/proc/{container.record.pid}/root", _DIRECTORY)
    else:
        image = services.images.resolve(container.record.image)
        paths = container.paths
        below = (services.init_layer, *services.images.snapshots.overlay_lowers(image))
        if writable:
            clear_volatile(container)
            fd = open_overlay(below, paths.upper, paths.work)
        else:
            fd = open_overlay((paths.upper, *below))
    try:
        yield fd
    finally:
        os.close(fd)
        if writable and not container.is_up:
            clear_volatile(container)


def clear_volatile(container: Container) -> None:
    """Removes the mark that forbids mounting a `volatile` upper again (Documentation/filesystems/overlayfs.rst, "Volatile mount")."""
    shutil.rmtree(container.paths.work / "work" / "incompat", ignore_errors=True)


@contextmanager
def path_root(services: Services, container: Container, path: str, *, writable: bool = False) -> Iterator[tuple[int, str]]:
    """The root to resolve `path` in, and `path` in it: the container's, or that of the mount it lies in. Raises InvalidInput."""
    if not path:
        raise InvalidInput("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidInput("bad parameter: path cannot hold a NUL byte")
    point = None if container.is_up else _mount_at(container, path)
    if point is None:
        with container_root(services, container, writable=writable) as root:
            yield root, path
        return
    inner = posixpath.normpath("/" + path.lstrip("/"))[len(point.place) :] or "/"
    if point.type == "image":
        with _image_part(services, point) as root:
            yield root, inner
        return
    root, file = _open_source(services, point)
    try:
        inner = file or inner
        yield root, inner + ("/" if path.endswith("/") and not inner.endswith("/") else "")
    finally:
        os.close(root)


def _open_source(services: Services, point: MountPoint) -> tuple[int, str]:
    """What is mounted at `point`: a directory and "", or a directory and a file's path in it. Raises InvalidInput.

    By descriptor alone: another container that has the volume may put a symlink in place of the part at any moment (CVE-2021-25741).
    """
    place, part = (services.volumes.mount(point.name), point.subpath or ".") if point.type == "volume" else (Path("/"), point.source)
    base = os.open(place, _DIRECTORY)
    try:
        found = open_in_root(base, part, _DIRECTORY)
    except NotADirectoryError:
        return base, part
    except OSError as error:
        os.close(base)
        raise InvalidInput(f"cannot access path {part} of the mount at {point.destination}: {error.strerror}") from error
    os.close(base)
    return found, ""


@contextmanager
def _image_part(services: Services, point: MountPoint) -> Iterator[int]:
    """What of an image is mounted at `point`, as a directory. Raises NotFound, InvalidInput."""
    with ImageRoot(services.images, services.images.resolve(point.image)) as image, image.directory(point.subpath or "/") as found:
        if found is None:
            raise NotFound(f"the image {point.source} has no directory {point.subpath}")
        yield found


def is_read_only(container: Container, path: str) -> bool:
    """Whether writing at `path` is forbidden to the container itself."""
    point = _mount_at(container, path)
    return not point.rw if point is not None else bool(container.record.host["ReadonlyRootfs"])


def _mount_at(container: Container, path: str) -> MountPoint | None:
    clean = posixpath.normpath("/" + path.lstrip("/"))
    points = [MountPoint.from_row(row) for row in container.record.mounts if row["type"] != "tmpfs"]
    inside = [point for point in points if clean == point.place or clean.startswith(point.place + "/")]
    return max(inside, key=lambda point: len(point.place), default=None)
