"""The downward API: fields of a pod, and resources of its containers, as text (fieldRef and resourceFieldRef)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from atoll import units
from atoll.client.objects import Object
from atoll.errors import InvalidInput

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}


def field_value(pod: Object, path: str, *, addresses: Mapping[str, str]) -> str:
    """`addresses` hold status.podIP and status.hostIP, known here before the API knows them. Raises InvalidInput for an unknown path."""
    meta, spec = pod["metadata"], pod["spec"]
    if path in addresses:
        return addresses[path]
    if match := _SUBSCRIPT.fullmatch(path):
        return str((meta.get(match[1]) or {}).get(match[2], ""))
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(meta.get(path.partition(".")[2], ""))
        case "metadata.labels" | "metadata.annotations":
            return "\n".join(f'{key}="{_escaped(str(value))}"' for key, value in sorted((meta.get(path.partition(".")[2]) or {}).items()))
        case "spec.nodeName":
            return str(spec.get("nodeName", ""))
        case "spec.serviceAccountName":
            return str(spec.get("serviceAccountName", ""))
        case _:
            raise InvalidInput(f"unsupported fieldPath: {path}")


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(char, char) for char in text)


def resource_value(pod: Object, reference: Object, container: Object, allocatable: Mapping[str, str]) -> str:
    """A limit or request of `container` (or of the one the reference names), divided and rounded up. An absent limit is what the node has.

    Raises InvalidInput.
    """
    name = reference.get("containerName")
    if name:
        every = (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"])
        found = next((one for one in every if one["name"] == name), None)
        if found is None:
            raise InvalidInput(f"container {name} not found")
        container = found
    kind, _, resource = str(reference.get("resource", "")).partition(".")
    if kind not in ("limits", "requests") or not resource:
        raise InvalidInput(f"unsupported container resource : {reference.get('resource')}")
    amount = ((container.get("resources") or {}).get(kind) or {}).get(resource)
    if amount is None:
        amount = allocatable.get(resource, "0") if kind == "limits" else "0"
    divisor = units.parse_quantity(str(reference.get("divisor") or "1")) or 1
    return str(math.ceil(units.parse_quantity(amount) / divisor))
