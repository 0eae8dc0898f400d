"""Named contexts (`--build-context NAME=...`): what stands for the stage or the image of that name (Docker reference, "build contexts")."""

from __future__ import annotations

from collections.abc import Mapping

from atoll.errors import InvalidInput, NotSupported
from atoll.images import parse

IMAGE = "docker-image://"
LOCAL = "local:"
LAYOUT = "oci-layout://"


def find(name: str, contexts: Mapping[str, str]) -> str | None:
    """What NAME stands for, None where it is its own; `alpine` also names `docker.io/library/alpine:latest`."""
    if not contexts:
        return None
    if name.lower() in contexts:
        return contexts[name.lower()]
    try:
        familiar = parse(name).with_default_tag().familiar
    except InvalidInput:
        return None
    return contexts.get(familiar, contexts.get(familiar.removesuffix(":latest")))


def local(name: str, contexts: Mapping[str, str]) -> str | None:
    """The client's directory that NAME stands for, if it does."""
    found = find(name, contexts)
    return found.removeprefix(LOCAL) if found and found.startswith(LOCAL) else None


def layout(name: str, contexts: Mapping[str, str]) -> str | None:
    """The image in an OCI layout of the client's that NAME stands for, if it does: STORE[:TAG]@DIGEST, the store by the client's name."""
    found = find(name, contexts)
    return found.removeprefix(LAYOUT) if found and found.startswith(LAYOUT) else None


def shown(name: str, contexts: Mapping[str, str]) -> str:
    """How a stage that begins with NAME is told. A layout's store has a new name each time, which says nothing."""
    address = layout(name, contexts)
    if address is not None:
        return f"{LAYOUT}{name}@{address.partition('@')[2]}"
    return (find(name, contexts) or name).removeprefix(IMAGE)


def image(name: str, contexts: Mapping[str, str]) -> str:
    """The image that NAME stands for, often itself. Raises NotSupported for a context of another kind."""
    found = find(name, contexts)
    if found is None:
        return name
    if found.startswith(IMAGE):
        return found.removeprefix(IMAGE)
    if found.startswith(LOCAL):
        raise NotSupported(f"the named context {name} is a directory: it can be copied from and mounted, but no stage can begin with it")
    raise NotSupported(f"the named context {name}={found} is not supported: name a directory, docker-image://IMAGE or oci-layout://PATH")
