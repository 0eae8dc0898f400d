"""The user namespace of a pod that says `hostUsers: false` (KEP-127): 65,536 ids of the host's that no other pod here has.

Which ones is remembered nowhere but in the pod's containers: the first takes a block by the pod's uid, or the next that is free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from atoll.client.objects import Object
from atoll.engine.containers.record import Container
from atoll.engine.containers.userns import parse
from atoll.node.pods.model import LABEL_UID

SIZE = 65536  # ids of a pod, as upstream
_BLOCKS = (1 << 32) // SIZE - 2  # less the host's own and the last, which has the id that means none


def mode(pod: Object, containers: Iterable[Container]) -> str:
    """HostConfig.UsernsMode of the pod's containers; `containers` are all of the machine's."""
    if pod["spec"].get("hostUsers") is not False:
        return ""
    uid, taken = pod["metadata"]["uid"], set()
    for container in containers:
        found = parse(container.record.host["UsernsMode"])
        if found is not None:
            if container.labels.get(LABEL_UID) == uid:
                return str(container.record.host["UsernsMode"])
            taken.add(found[0] // SIZE)
    block = 1 + int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big") % _BLOCKS
    while block in taken:
        block = 1 + block % _BLOCKS
    return f"map:{block * SIZE}:{SIZE}"
