"""Mounts whose source is no path of this mount namespace: what another container has mounted, and the layers of an image.

`docker run --ipc container:x` shares x's /dev/shm, which is mounted in x's namespace alone; `--mount type=image` shows an image's content.
"""

from __future__ import annotations

import os

from atoll.kernel import inroot, mounts, processes
from atoll.runtime.constants import LAYER, SUBPATH
from atoll.runtime.mount_options import MountOptions

_CLONE_NEWNS = 0x00020000


def from_namespace(namespace: str, source: str, *, recursive: bool) -> int:
    """A detached copy of what is mounted at `source` in the mount namespace at the path `namespace`.

    Only who is inside may copy a mount: this is a visit, with our own root and directory found again after it.
    """
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    other = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        processes.join(other, _CLONE_NEWNS, namespace)
        try:
            return mounts.clone_tree(source, recursive=recursive)
        finally:
            processes.join(own, _CLONE_NEWNS, "own mount namespace")
            os.fchdir(directory)
    finally:
        for fd in (own, directory, other):
            os.close(fd)


def mount_layers(root: int, destination: str, options: MountOptions) -> None:
    """An image's layers, merged, never writable; with a subpath that part of them covers the rest."""
    from pathlib import Path  # seldom needed: every start would pay for it

    from atoll.kernel.detached import mount_overlay

    layers = [Path(value) for name, value in options.parameters if name == LAYER and value is not None]
    target = inroot.make_directory(root, destination)
    try:
        if len(layers) == 1:  # the kernel refuses to merge a single layer with nothing
            _attach(mounts.clone_tree(str(layers[0]), recursive=False), target, destination)
        else:
            mount_overlay(Path(f"/proc/self/fd/{target}"), layers)
    finally:
        os.close(target)
    merged = inroot.open_path(root, destination)
    try:
        mounts.set_attributes(merged, add=mounts.ATTR_RDONLY)
        part = options.value(SUBPATH)
        if part is not None:
            inside = inroot.open_path(merged, part)
            try:
                _attach(mounts.clone_tree(f"{destination}/{part}", recursive=False, at=inside), merged, destination)
            finally:
                os.close(inside)
    finally:
        os.close(merged)


def _attach(tree: int, target: int, destination: str) -> None:
    try:
        mounts.attach(tree, target, destination)
    finally:
        os.close(tree)
