"""HostConfig.DeviceRequests (`--gpus`, `--device vendor/class=name`) as the qualified names of CDI devices.

A request of the driver "cdi" names its devices. One for capabilities ("gpu") names at most ids or a number: the kind is found among
what CDI files describe, NVIDIA's first, since `--gpus` was theirs alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atoll.errors import InvalidInput
from atoll.runtime import cdi

ALL = "all"  # a device by which vendors describe every one of theirs at once
_FAVOURITE = "nvidia.com/gpu"


def check(requests: Sequence[Mapping[str, Any]]) -> None:
    """What can be said at create: the shapes. Raises InvalidInput."""
    for request in requests:
        count, ids = request.get("Count") or 0, request.get("DeviceIDs") or []
        if not isinstance(count, int) or isinstance(count, bool) or count < -1:
            raise InvalidInput(f"invalid device request: Count must be a number, or -1 for all: {count!r}")
        if not isinstance(ids, list) or not all(isinstance(name, str) and name for name in ids):
            raise InvalidInput("invalid device request: DeviceIDs must be a list of names")
        if count and ids:
            raise InvalidInput("cannot set both Count and DeviceIDs on device request")
        capabilities = request.get("Capabilities") or []
        if not isinstance(capabilities, list) or not all(isinstance(words, list) for words in capabilities):
            raise InvalidInput("invalid device request: Capabilities must be a list of lists")
        if request.get("Driver") == "cdi":
            for name in ids:
                if not cdi.is_qualified(name):
                    raise InvalidInput(f"invalid CDI device name {name!r}: write vendor/class=name")


def devices(requests: Sequence[Mapping[str, Any]], catalogue: cdi.Catalogue) -> list[str]:
    """Raises InvalidInput where nothing fits."""
    found: list[str] = []
    for request in requests:
        if request.get("Driver") == "cdi":
            found += request.get("DeviceIDs") or []
        else:
            found += _by_capability(request, catalogue)
    return found


def _by_capability(request: Mapping[str, Any], catalogue: cdi.Catalogue) -> list[str]:
    capabilities = request.get("Capabilities") or []
    kinds = {name.partition("=")[0] for name in catalogue.devices}
    wanted = {word for words in capabilities for word in words}
    fitting = sorted((kind for kind in kinds if kind.partition("/")[2] in wanted), key=lambda kind: (kind != _FAVOURITE, kind))
    if request.get("Driver"):
        fitting = [kind for kind in fitting if kind.partition("/")[0].partition(".")[0] == request["Driver"]]
    if not fitting:
        shown = "[" + " ".join("[" + " ".join(map(str, words)) + "]" for words in capabilities) + "]"
        places = " and ".join(catalogue.directories)
        raise InvalidInput(
            f'could not select device driver "{request.get("Driver") or ""}" with capabilities: {shown}: '
            + "; ".join((f"no CDI file in {places} describes such a device", *catalogue.problems))
        )
    kind = fitting[0]
    ids = request.get("DeviceIDs") or []
    if ids:
        return [name if cdi.is_qualified(name) else f"{kind}={name}" for name in ids]
    single = [name for name in catalogue.of_kind(kind) if name != ALL]
    count = request.get("Count") or 0
    if count == -1:
        return [f"{kind}={ALL}"] if f"{kind}={ALL}" in catalogue.devices else [f"{kind}={name}" for name in single]
    wanted_count = count or 1
    if wanted_count > len(single):
        raise InvalidInput(f"{wanted_count} devices of {kind} were asked for, but there are {len(single)}: {', '.join(single) or 'none'}")
    return [f"{kind}={name}" for name in single[:wanted_count]]
