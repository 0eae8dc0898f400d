"""The values of this package: descriptors, layers, images, and who uses them.

An image is its configuration (OCI image-spec config.json) and an ordered list of layers. Its id is the digest of the configuration's bytes,
so equal images have equal ids everywhere. A layer is known by two digests: the diff id (of its uncompressed tar) and the chain id (of the
diff ids from the bottom up to it), which names one unpacked directory.
"""

from __future__ import annotations

import hashlib
import platform as host
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NewType

Digest = NewType("Digest", str)
"""An algorithm and hex digits: "sha256:9f86d0...". Only sha256 is stored; Docker and every registry in use speak it."""

Progress = Callable[[dict[str, Any]], None]
"""Takes one of Docker's progress messages: {"status", "id", "progressDetail": {"current", "total"}}, {"stream"}, {"aux"}.

Called on the loop's thread by pull, push and load; from a worker's thread by what is documented so.
"""

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


def sha256(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def chain_id(parent: str | None, diff_id: str) -> Digest:
    """The chain id of a layer above `parent` (image-spec config.md, "Layer ChainID")."""
    return Digest(diff_id) if parent is None else sha256(f"{parent} {diff_id}".encode())


def nothing(message: dict[str, Any]) -> None:
    """A Progress nobody watches."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What a manifest was built for: linux/amd64, linux/arm/v7."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def of_host(cls) -> Platform:
        machine = host.machine()
        return cls("linux", MACHINES.get(machine, machine), "v7" if machine == "armv7l" else "")

    @classmethod
    def of_config(cls, config: dict[str, Any]) -> Platform:
        """What an image's configuration says of itself."""
        return cls(*(str(config.get(name) or "") for name in ("os", "architecture", "variant")))

    def serves(self, wanted: Platform) -> bool:
        """Whether an image of this platform is one of the platform wanted; a variant counts where both name one."""
        same = (self.os, self.architecture) == (wanted.os, wanted.architecture)
        return same and (not wanted.variant or self.variant in ("", wanted.variant))

    def wire(self) -> dict[str, str]:
        """As image-spec's index has it."""
        return {name: value for name, value in asdict(self).items() if value}

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to content: what it is, its digest, its size in bytes (image-spec descriptor.md)."""

    media_type: str
    digest: str
    size: int

    def wire(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class Layer:
    """An unpacked layer. `directory` holds it in overlay form (whiteouts are 0/0 devices) and is never written again."""

    chain_id: str
    diff_id: str
    parent: str | None
    directory: Path
    size: int


@dataclass(frozen=True, slots=True)
class Image:
    """`layers` from the bottom up; `repo_tags` and `repo_digests` as users know them ("debian:bookworm", "debian@sha256:...")."""

    id: str
    config: dict[str, Any]
    layers: tuple[Layer, ...]
    manifest: Descriptor | None
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    parent: str | None
    added_ns: int
    tagged_ns: int

    @property
    def runtime_config(self) -> dict[str, Any]:
        """What containers start from: Env, Cmd, Entrypoint, WorkingDir, User, ExposedPorts, Volumes, Labels..."""
        config = self.config.get("config")
        return config if isinstance(config, dict) else {}

    @property
    def platform(self) -> Platform:
        return Platform.of_config(self.config)

    @property
    def size(self) -> int:
        """Bytes of all files in all layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def chain_id(self) -> str | None:
        """The top layer's; None for an image without layers."""
        return self.layers[-1].chain_id if self.layers else None

    @property
    def short_id(self) -> str:
        return self.id.removeprefix("sha256:")[:12]


@dataclass(frozen=True, slots=True)
class ImageUser:
    """A container, as far as images care: it keeps the layers of `image_id` and stands in the way of their removal."""

    container_id: str
    image_id: str
    reference: str
    running: bool


Users = Callable[[], Iterable[ImageUser]]


def no_users() -> Iterator[ImageUser]:
    return iter(())
