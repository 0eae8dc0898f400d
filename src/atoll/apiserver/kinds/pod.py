"""Pods: their defaults, quality of service, and the few fields of spec that an update may change."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.pod_defaults import containers_of, default_pod
from atoll.apiserver.kinds.pod_spec import validate_pod_spec
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules
from atoll.apiserver.machinery.kind import Kind
from atoll.units import parse_quantity

_UPDATE_FORBIDDEN = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
    "previously negative)"
)
_QOS_RESOURCES = ("cpu", "memory")


class PodRules(Rules):
    counts_generations = True

    def default(self, obj: Object) -> None:
        default_pod(obj.setdefault("spec", {}))

    def initial_status(self, obj: ReadOnly) -> Object:
        return {"phase": "Pending", "qosClass": qos_class(obj.get("spec") or {})}

    def prepare_for_update(self, kind: Kind, new: Object, old: ReadOnly, subresource: str = "") -> None:
        if subresource == "ephemeralcontainers":
            added = (new.get("spec") or {}).get("ephemeralContainers")
            kept = {field: value for field, value in old["spec"].items() if field != "ephemeralContainers"}
            new["spec"] = {**kept, "ephemeralContainers": added} if added else kept
            new["metadata"] = dict(old["metadata"])
        elif subresource == "resize":
            new["spec"] = {**old["spec"], **_resized(new.get("spec") or {}, old["spec"])}
            new["metadata"] = dict(old["metadata"])
        super().prepare_for_update(kind, new, old, subresource)
        if subresource == "status":
            # The class is decided once, by the spec; a status that leaves it out does not forget it.
            new["status"] = {**(new.get("status") or {}), "qosClass": (old.get("status") or {}).get("qosClass") or qos_class(old["spec"])}

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        validate_pod_spec(obj.get("spec") or {}, "spec", causes)

    def check_new(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        if spec.get("ephemeralContainers"):
            causes.forbidden("spec.ephemeralContainers", "cannot be set on create")

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        if subresource == "ephemeralcontainers":
            _check_ephemeral(new["spec"], old["spec"], causes)
        elif subresource == "resize":
            if qos_class(new["spec"]) != (old.get("status") or {}).get("qosClass", qos_class(old["spec"])):
                causes.invalid("spec", qos_class(new["spec"]), "Pod QOS Class may not change as a result of resizing")
        else:
            _check_update(new["spec"], old["spec"], causes)

    def extra_fields(self, obj: ReadOnly) -> dict[str, str]:
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        addresses = status.get("podIPs") or ()
        return {
            "spec.nodeName": spec.get("nodeName") or "",
            "spec.restartPolicy": spec.get("restartPolicy") or "",
            "spec.schedulerName": spec.get("schedulerName") or "",
            "spec.serviceAccountName": spec.get("serviceAccountName") or "",
            "spec.hostNetwork": "true" if spec.get("hostNetwork") else "false",
            "status.phase": status.get("phase") or "",
            "status.podIP": status.get("podIP") or (addresses[0].get("ip", "") if addresses else ""),
            "status.nominatedNodeName": status.get("nominatedNodeName") or "",
        }


def qos_class(spec: Mapping[str, Any]) -> str:
    """Guaranteed: every container has limits of cpu and memory, and requests equal to them. BestEffort: nobody asks for any."""
    sets = [container.get("resources") or {} for field in ("containers", "initContainers") for container in spec.get(field) or ()]
    asked, guaranteed = False, bool(sets)
    for resources in sets:
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in _QOS_RESOURCES:
            limit = parse_quantity(limits.get(name, 0))
            request = parse_quantity(requests.get(name, limits.get(name, 0)))
            asked = asked or bool(limit or request)
            guaranteed = guaranteed and bool(limit) and limit == request
    return ("Guaranteed" if guaranteed else "Burstable") if asked else "BestEffort"


def _check_update(new: ReadOnly, old: ReadOnly, causes: Causes) -> None:
    """Put the old values where a change is allowed; what still differs is not."""
    for field in ("containers", "initContainers"):
        if len(new.get(field) or ()) != len(old.get(field) or ()):
            causes.forbidden(
                f"spec.{field}", f"pod updates may not add or remove {'containers' if field == 'containers' else 'init containers'}"
            )
            return
    before, after = old.get("activeDeadlineSeconds"), new.get("activeDeadlineSeconds")
    if before is not None and after is None:
        causes.invalid("spec.activeDeadlineSeconds", None, "must not update from a positive integer to nil value")
    elif before is not None and after > before:
        causes.invalid("spec.activeDeadlineSeconds", after, f"must be less than or equal to previous value: {before}")
    if any(toleration not in (new.get("tolerations") or ()) for toleration in _without_seconds(old, new)):
        causes.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    allowed = copy.deepcopy(dict(new))
    for container, former in zip(containers_of(allowed), containers_of(dict(old)), strict=False):
        container["image"] = former.get("image")
    fields = ["activeDeadlineSeconds", "tolerations"]
    if (old.get("terminationGracePeriodSeconds") or 0) < 0 and new.get("terminationGracePeriodSeconds") == 1:
        fields.append("terminationGracePeriodSeconds")
    gates = old.get("schedulingGates") or []
    if gates:
        if all(gate in gates for gate in new.get("schedulingGates") or ()):
            fields += ["schedulingGates", "nodeSelector", "affinity"]
        else:
            causes.forbidden("spec.schedulingGates", "only deletion is allowed, but found new scheduling gate")
    for field in fields:
        if field in old:
            allowed[field] = old[field]
        else:
            allowed.pop(field, None)
    if allowed != old:
        changed = sorted(field for field in {*allowed, *old} if allowed.get(field) != old.get(field))
        causes.forbidden("spec", f"{_UPDATE_FORBIDDEN}\nchanged: {', '.join(changed)}")


def _without_seconds(old: ReadOnly, new: ReadOnly) -> list[Any]:
    """The old tolerations, those left out whose like with other tolerationSeconds is among the new ones."""

    def bare(toleration: ReadOnly) -> dict[str, Any]:
        return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}

    kept = [bare(toleration) for toleration in new.get("tolerations") or ()]
    return [toleration for toleration in old.get("tolerations") or () if bare(toleration) not in kept]


def _check_ephemeral(new: ReadOnly, old: ReadOnly, causes: Causes) -> None:
    present = {container.get("name"): container for container in new.get("ephemeralContainers") or ()}
    for container in old.get("ephemeralContainers") or ():
        name = container.get("name")
        if name not in present:
            causes.forbidden("spec.ephemeralContainers", f'existing ephemeral containers "{name}" may not be removed\n')
        elif present[name] != container:
            causes.forbidden("spec.ephemeralContainers", f'existing ephemeral containers "{name}" may not be changed\n')


def _resized(new: ReadOnly, old: ReadOnly) -> Object:
    """The old containers with the new resources, by name."""
    resized: Object = {}
    for field in ("containers", "initContainers"):
        wanted = {container.get("name"): container.get("resources") for container in new.get(field) or ()}
        if old.get(field):
            resized[field] = [
                {**container, "resources": wanted.get(container.get("name")) or container.get("resources") or {}}
                for container in old[field]
            ]
    return resized


RULES = PodRules()
