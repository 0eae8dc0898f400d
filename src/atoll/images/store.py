"""The image store: one façade over references, content, layers, archives and registries.

Queries are quick and synchronous (SQLite in WAL, microseconds); what moves bytes is async and does its heavy part in threads. All of it is
called on one event loop. `users` tells which containers use which images, so that nothing under a container is taken away.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from atoll.config import Instance
from atoll.images.model import Descriptor, Image, Layer, Platform, Progress, Users, no_users, nothing


class ImageStore:
    """The images of one instance. `open()` before use, `close()` after."""

    def __init__(self, instance: Instance, *, users: Users = no_users, clock: Callable[[], int] = time.time_ns) -> None:
        raise NotImplementedError

    def open(self) -> None:
        """Makes the directories and the database; takes away what an earlier crash left half made."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    # naming ------------------------------------------------------------------------------------------------------------------------
    def resolve(self, reference: str) -> Image:
        """The image of a name, a digest reference, an id or the unique start of an id. Raises NotFound("No such image: x:latest")."""
        raise NotImplementedError

    def list(self) -> list[Image]:
        """Every image, newest first."""
        raise NotImplementedError

    def tag(self, reference: str, target: str) -> None:
        """Points the name `target` at the image; a name that stood elsewhere moves."""
        raise NotImplementedError

    async def remove(self, reference: str, *, force: bool = False, prune: bool = True) -> list[dict[str, str]]:
        """Docker's rules: [{"Untagged": "x:latest"}, {"Deleted": "sha256:..."}]. Raises NotFound, Conflict."""
        raise NotImplementedError

    async def prune(self, *, dangling: bool = True, until_ns: int | None = None, labels: Sequence[str] = ()) -> dict[str, Any]:
        """Removes images nobody uses (untagged ones only, unless `dangling` is False): {"ImagesDeleted": [...], "SpaceReclaimed": bytes}."""
        raise NotImplementedError

    # what the Docker API shows -----------------------------------------------------------------------------------------------------
    def inspect(self, reference: str) -> dict[str, Any]:
        """GET /images/{name}/json."""
        raise NotImplementedError

    def summaries(
        self, *, show_all: bool = False, filters: dict[str, list[str]] | None = None, digests: bool = True
    ) -> list[dict[str, Any]]:
        """GET /images/json. Filters: reference, dangling, label, before, since, until."""
        raise NotImplementedError

    def history(self, reference: str) -> list[dict[str, Any]]:
        """GET /images/{name}/history."""
        raise NotImplementedError

    def disk_usage(self) -> dict[str, Any]:
        """{"LayersSize": bytes, "Images": [summary with SharedSize and Containers]} as /system/df has them."""
        raise NotImplementedError

    # making images -----------------------------------------------------------------------------------------------------------------
    def create_image(
        self, config: dict[str, Any], layers: Sequence[Layer], *, tags: Iterable[str] = (), parent: str | None = None
    ) -> Image:
        """Stores `config` with rootfs.diff_ids set from `layers` (bottom up) and gives the image its `tags`.

        `config` is an OCI image configuration: architecture, os, created, config {Env, Cmd...}, history; missing architecture and os
        become this machine's. The same config and layers give the same image.
        """
        raise NotImplementedError

    async def load(self, chunks: AsyncIterator[bytes], progress: Progress = nothing) -> list[Image]:
        """Reads a docker-archive or OCI-layout tar, plain or compressed. Raises InvalidInput, DigestMismatch."""
        raise NotImplementedError

    def save(self, references: Sequence[str]) -> AsyncIterator[bytes]:
        """A docker-archive tar that is an OCI layout as well. Raises NotFound before the first chunk."""
        raise NotImplementedError

    async def import_tar(
        self, chunks: AsyncIterator[bytes], *, target: str | None = None, message: str = "", config: dict[str, Any] | None = None
    ) -> Image:
        """An image of one layer from a root's tar (`docker import`). `config` is the runtime config (Cmd, Env...)."""
        raise NotImplementedError

    async def bootstrap(
        self,
        reference: str = "debian:bookworm",
        *,
        variant: str = "minbase",
        include: Sequence[str] = (),
        mirror: str | None = None,
        progress: Progress = nothing,
    ) -> Image:
        """A Debian base image from Debian's own signed packages, without any registry. Raises Unavailable, InvalidInput, SystemFailure."""
        raise NotImplementedError

    # registries --------------------------------------------------------------------------------------------------------------------
    async def pull(
        self, reference: str, *, auth: dict[str, Any] | None = None, platform: Platform | None = None, progress: Progress = nothing
    ) -> Image:
        """`auth` is X-Registry-Auth decoded: username, password, identitytoken, registrytoken. Raises NotFound, Unauthenticated, Unavailable.

        Docker Hub's hello-world is made here when no registry answers for it, and the progress says so.
        """
        raise NotImplementedError

    async def push(self, reference: str, *, auth: dict[str, Any] | None = None, progress: Progress = nothing) -> Descriptor:
        """Uploads what the registry lacks and the manifest; the manifest's descriptor."""
        raise NotImplementedError
