"""Images: references, content by digest, layers, archives, registries.

    reference   what a name means            store      the façade the engine and the builder call
    blobs       content by digest            snapshots  unpacked layers, overlay stacks, committing an upper
    tar, extract, pack                       reading, safely unpacking and writing layers
    archive_in, archive_out                  docker-archive and OCI layout
    registry, pull, push                     the distribution protocol
    hello, bootstrap                         images that need no registry

For the engine and the builder:

    store = ImageStore(instance, users=containers_using); store.open()
    image = store.resolve("debian:bookworm")              # Image: id, config, layers bottom up, repo_tags...
    store.snapshots.overlay_lowers(image)                 # directories for an overlay's lowerdir, top first
    store.snapshots.overlay_lowers(layers)                # the same for a stack of layers that is no image yet
    layer = await store.snapshots.commit(upper, parent=chain_id | None, consume=False, ignore=("etc/resolv.conf",))
    layer = await store.snapshots.unpack(chunks, parent=chain_id | None)          # from a tar stream
    image = store.create_image(config, [*image.layers, layer], tags=["app:latest"])
    store.leases.acquire("build-cache/<key>", [chain_id, ...]); store.leases.release("build-cache/<key>")   # layers no image holds
    extract.extract_tar(stream, root_fd, extract.Policy(...))                     # cp into a container, ADD in a build
    pack.write_tree(out, root_fd, ...)                                            # export, cp out of a container
"""

from __future__ import annotations

from atoll.images.model import Descriptor, Image, ImageUser, Layer, Platform, Progress
from atoll.images.reference import Reference, parse
from atoll.images.store import ImageStore

__all__ = ["Descriptor", "Image", "ImageStore", "ImageUser", "Layer", "Platform", "Progress", "Reference", "parse"]
