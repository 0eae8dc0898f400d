"""Where a build's image goes: into the image store and on to registries, or to the client, as an archive or as files.

`moby` (what buildx makes of `image` and of `--load`) names it here, and pushes it if asked; `docker` and `oci` send the archive that
`docker save` would; `tar` sends the root's files as a tar, and `local` as files, over the session's FileSend.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from atoll.build.buildkit.board import Board, Vertex
from atoll.build.buildkit.filesend import send_archive, send_tree
from atoll.build.buildkit.filesync import Moved
from atoll.build.buildkit.sessions import Session
from atoll.build.executor import credentials
from atoll.build.sources import merged_tree
from atoll.errors import InvalidInput, NotSupported
from atoll.images import Image, ImageStore, Reference, parse
from atoll.images.bridge import produce
from atoll.images.pack import pack_tree
from atoll.images.tarheader import TRAILER

# What clients look for in the response.
CONFIG_DIGEST, DIGEST, DESCRIPTOR = (f"containerimage.{name}" for name in ("config.digest", "digest", "descriptor"))
STORED = frozenset({"moby", "image"})
ARCHIVES = frozenset({"docker", "oci"})
TRUE = frozenset({"1", "t", "true"})


@dataclass(frozen=True, slots=True)
class Exporter:
    """One of a Solve's; NUMBER tells the client which of its outputs it is."""

    kind: str
    attributes: Mapping[str, str]
    number: int

    def is_set(self, name: str) -> bool:
        return self.attributes.get(name, "").lower() in TRUE

    @property
    def names(self) -> list[Reference]:
        return [parse(name.strip()).with_default_tag() for name in self.attributes.get("name", "").split(",") if name.strip()]


def exporters(request: Any) -> list[Exporter]:
    """Those of a SolveRequest, old fields and new."""
    found = [Exporter(one.Type, dict(one.Attrs), number) for number, one in enumerate(request.Exporters)]
    if not found and request.ExporterDeprecated:
        found = [Exporter(request.ExporterDeprecated, dict(request.ExporterAttrsDeprecated), 0)]
    return found


async def export(exporter: Exporter, image: Image, images: ImageStore, session: Session, board: Board) -> dict[str, str]:
    """What the client is told of it. Raises InvalidInput, NotSupported, and what pushing raises."""
    if exporter.kind in STORED:
        return await _store(exporter, image, images, board)
    if exporter.kind in ARCHIVES:
        return await _archive(exporter, image, images, session, board)
    if exporter.kind in ("tar", "local"):
        return await _files(exporter, image, images, session, board)
    raise NotSupported(f"the output type {exporter.kind} is not supported: docker, image, oci, local and tar are")


async def _store(exporter: Exporter, image: Image, images: ImageStore, board: Board) -> dict[str, str]:
    if exporter.is_set("push-by-digest"):
        raise NotSupported("the output attribute push-by-digest is not supported: name the image and push it by its name")
    names = exporter.names
    with board.task("exporting to image") as vertex:
        vertex.status("exporting layers", done=True)
        vertex.status(f"writing image {image.id}", done=True)
        for name in names:
            vertex.status(f"naming to {name}", done=True)
            images.tag(image.id, str(name))
    digest = image.id
    if exporter.is_set("push"):
        if not names:
            raise InvalidInput("tag is needed when pushing to registry")
        for name in names:
            digest = await _push(name, images, board)
    return {
        CONFIG_DIGEST: image.id,
        DIGEST: digest,
        **({"image.name": ",".join(str(name) for name in names)} if names else {}),
    }


async def _push(name: Reference, images: ImageStore, board: Board) -> str:
    with board.task(f"pushing {name} with docker") as vertex:
        auth = await credentials.get()(name.domain)
        manifest = await images.push(str(name), auth=auth, progress=vertex.transfer)
    return manifest.digest


async def _archive(exporter: Exporter, image: Image, images: ImageStore, session: Session, board: Board) -> dict[str, str]:
    if exporter.attributes.get("tar", "true").lower() not in TRUE:
        raise NotSupported(f"the output type={exporter.kind},tar=false is not supported: write an archive to a file with dest=")
    names = exporter.names
    told = {"image.name": ",".join(str(name) for name in names)} if names else {}
    with board.task(f"exporting to {exporter.kind} image format") as vertex:
        await send_archive(session, exporter.number, images.archive(image, names), told, _moved(vertex, "sending tarball"))
        vertex.status("sending tarball", done=True)
    manifest = await images.archive_manifest(image)
    descriptor = base64.b64encode(orjson.dumps(manifest.wire())).decode()
    return {CONFIG_DIGEST: image.id, DIGEST: manifest.digest, DESCRIPTOR: descriptor, **told}


async def _files(exporter: Exporter, image: Image, images: ImageStore, session: Session, board: Board) -> dict[str, str]:
    with board.task("exporting to client directory" if exporter.kind == "local" else "exporting to client tarball") as vertex:
        moved = _moved(vertex, "copying files" if exporter.kind == "local" else "sending tarball")
        lowers = images.snapshots.overlay_lowers(image)
        if exporter.kind == "tar":
            await send_archive(session, exporter.number, _tar(lowers), {}, moved)
        elif lowers:
            await send_tree(session, exporter.number, lowers, moved)
    return {}


def _tar(lowers: Sequence[Path]) -> AsyncIterator[bytes]:
    def pack() -> Iterator[bytes]:
        with merged_tree(lowers, "the result") as tree:
            yield from pack_tree(tree.root)

    return produce(pack() if lowers else iter([TRAILER]))


def _moved(vertex: Vertex, told: str) -> Moved:
    return lambda count: vertex.status(told, count)
