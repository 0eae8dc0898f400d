"""APIServices: named by version and group, served here (no service) or by a service of the cluster."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

SERVICE_PORT = 443
_GROUP_PRIORITY_MAX, _VERSION_PRIORITY_MAX = 20_000, 1_000


def local_condition(now: str) -> Object:
    """`now` may be empty."""
    message = "Local APIServices are always available"
    condition = {"type": "Available", "status": "True", "reason": "Local", "message": message}
    return {**condition, "lastTransitionTime": now} if now else condition


class APIServiceRules(Rules):
    def name_problems(self, name: str) -> list[str]:
        return names.path_segment(name)

    def default(self, obj: Object) -> None:
        service = (obj.get("spec") or {}).get("service")
        if service is not None:
            service.setdefault("port", SERVICE_PORT)

    def initial_status(self, obj: ReadOnly) -> Object:
        local = not (obj.get("spec") or {}).get("service")
        return {"conditions": [local_condition(obj["metadata"].get("creationTimestamp") or "")]} if local else {}

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec, name = obj.get("spec") or {}, obj["metadata"].get("name") or ""
        group, version = spec.get("group") or "", spec.get("version") or ""
        if name != f"{version}.{group}":
            causes.invalid("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{version}.{group}"')
        if group:
            causes.each("spec.group", group, names.subdomain(group))
        elif version != "v1":
            causes.required("spec.group", "only v1 may have an empty group and it better be legacy kube")
        causes.each("spec.version", version, names.label_1035(version))
        for field, most in (("groupPriorityMinimum", _GROUP_PRIORITY_MAX), ("versionPriority", _VERSION_PRIORITY_MAX)):
            if not 0 < spec.get(field, 0) <= most:
                causes.invalid(f"spec.{field}", spec.get(field, 0), f"must be positive and less than {most}")
        _check_way(spec, causes)


def _check_way(spec: Mapping[str, Any], causes: Causes) -> None:
    service, bundle, insecure = spec.get("service"), spec.get("caBundle") or "", bool(spec.get("insecureSkipTLSVerify"))
    if service is None:
        if bundle:
            causes.invalid("spec.caBundle", f"{_size(bundle)} bytes", "local APIServices may not have a caBundle")
        if insecure:
            causes.invalid("spec.insecureSkipTLSVerify", True, "local APIServices may not have insecureSkipTLSVerify")
        return
    for field in ("namespace", "name"):
        if not service.get(field):
            causes.required(f"spec.service.{field}")
    port = service.get("port", SERVICE_PORT)
    for problem in names.port_number(port):
        causes.invalid("spec.service.port", port, f"port is not valid: {problem}")
    if insecure and bundle:
        causes.invalid("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present")


def _size(bundle: str) -> int:
    try:
        return len(base64.b64decode(bundle))
    except binascii.Error:
        return len(bundle)


RULES = APIServiceRules()
