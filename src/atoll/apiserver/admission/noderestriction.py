"""NodeRestriction: a kubelet writes its own Node, lease and CSINode, the status of pods bound to it, and mirror pods; nothing of others'.

Labels are where a node could draw pods to itself: those below node-restriction.kubernetes.io are an administrator's alone, and of the
kubernetes.io and k8s.io ones a kubelet sets those that are known to be its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from atoll.apiserver.auth import references
from atoll.apiserver.auth.nodes import LEASE_NAMESPACE, MIRROR, node_name
from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses

MaybeObject = Mapping[str, Any] | None
_RESTRICTED = "node-restriction.kubernetes.io"
_KUBELET_NAMESPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")
_KUBELET_LABELS = frozenset(
    (
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.kubernetes.io/region",
        "failure-domain.kubernetes.io/zone",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/instance-type",
        "kubernetes.io/os",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    )
)


def restrict_node(core: Core, call: Call, new: MaybeObject, old: MaybeObject) -> None:
    """Raises StatusError 403 for a node that reaches beyond its own. `new` is None on delete, `old` on create."""
    node = node_name(call.user)
    if node is None:
        return
    if not node:
        raise statuses.forbidden(call.kind, call.name, f'could not determine node from user "{call.user.name}"')
    match call.kind.group, call.kind.plural:
        case "", "pods":
            why = _pod(core, call, node, new, old)
        case "", "nodes":
            why = _node(call, node, new, old)
        case "", "persistentvolumeclaims":
            why = _claim(node, new, old) if call.subresource == "status" else "may only update PVC status"
        case "", "serviceaccounts":
            why = _token(core, call, node, new) if call.subresource == "token" else ""
        case "coordination.k8s.io", "leases":
            if call.namespace != LEASE_NAMESPACE:
                why = f'can only access leases in the "{LEASE_NAMESPACE}" system namespace'
            else:
                why = "" if call.name == node else "can only access node lease with the same name as the requesting node"
        case "storage.k8s.io", "csinodes":
            why = "" if call.name == node else "can only access CSINode with the same name as the requesting node"
        case "resource.k8s.io", "resourceslices":
            owner = ((new or old or {}).get("spec") or {}).get("nodeName")
            why = "" if owner == node else "can only create, update or delete ResourceSlice with the same NodeName as the requesting node"
        case _:
            why = ""
    if why:
        raise statuses.forbidden(call.kind, call.name, why)


def _pod(core: Core, call: Call, node: str, new: MaybeObject, old: MaybeObject) -> str:
    if call.subresource == "status":
        return _pod_status(node, new or {}, old or {})
    if call.subresource == "eviction":
        found = core.find("", "v1", "pods", call.name or "", call.namespace)
        own = found is None or found.obj["spec"].get("nodeName") == node
        return "" if own else f"node {node} can only evict pods with spec.nodeName set to itself"
    if call.subresource:
        return f"unexpected pod subresource {call.subresource!r}, only 'status' and 'eviction' are allowed"
    if new is None:
        own = (old or {})["spec"].get("nodeName") == node
        return "" if own else f'node "{node}" can only delete pods with spec.nodeName set to itself'
    if old is not None:
        return f'unexpected operation "UPDATE", node "{node}" can only create and delete mirror pods'
    return _mirror_pod(core, node, new)


def _pod_status(node: str, new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    if old["spec"].get("nodeName") != node:
        return f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'  # noqa: S608  # no SQL
    if (old["metadata"].get("labels") or {}) != (new["metadata"].get("labels") or {}):
        return f'node "{node}" cannot update labels through pod status'
    claims = [(obj.get("status") or {}).get("resourceClaimStatuses") or [] for obj in (new, old)]
    return "" if claims[0] == claims[1] else f'node "{node}" cannot update resource claim statuses'


def _mirror_pod(core: Core, node: str, pod: Mapping[str, Any]) -> str:
    spec = pod.get("spec") or {}
    if MIRROR not in (pod["metadata"].get("annotations") or {}):
        return f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
    if spec.get("nodeName") != node:
        return f'node "{node}" can only create pods with spec.nodeName set to itself'
    owners = pod["metadata"].get("ownerReferences") or []
    if len(owners) > 1:
        return f'node "{node}" can only create pods with a single owner reference set to itself'
    owner = owners[0] if owners else {}
    if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
        return f'node "{node}" can only create pods with an owner reference set to itself'
    if not owner.get("controller"):
        return f'node "{node}" can only create pods with a controller owner reference set to itself'
    if owner.get("blockOwnerDeletion"):
        return f'node "{node}" must not set blockOwnerDeletion on an owner reference'
    item = core.find("", "v1", "nodes", node)
    uid = item.obj["metadata"]["uid"] if item else ""
    if owner.get("uid") != uid:
        return f"node {node} UID mismatch: expected {owner.get('uid')} got {uid}"
    return _refers(node, pod)


def _refers(node: str, pod: Mapping[str, Any]) -> str:
    """A mirror pod that referred to objects would let its node read them."""
    found = {
        "a service account": [pod["spec"].get("serviceAccountName")],
        "secrets": references.secrets(pod),
        "configmaps": references.config_maps(pod),
        "persistentvolumeclaims": references.claims(pod),
        "resourceclaims": references.resource_claims(pod),
    }
    what = next((name for name, names in found.items() if any(names)), "")
    return f'node "{node}" can not create pods that reference {what}' if what else ""


def _node(call: Call, node: str, new: MaybeObject, old: MaybeObject) -> str:
    if call.name != node:
        return f'node "{node}" is not allowed to modify node "{call.name}"'
    if new is None:
        return ""
    had = old["metadata"].get("labels") or {} if old is not None else {}
    has = new["metadata"].get("labels") or {}
    changed = {key for key in {*had, *has} if had.get(key) != has.get(key)}
    if old is None:
        labels = _forbidden(changed)
        return f'node "{node}" is not allowed to set the following labels: {", ".join(labels)}' if labels else ""
    if ((new.get("spec") or {}).get("taints") or []) != ((old.get("spec") or {}).get("taints") or []):
        return f'node "{node}" is not allowed to modify taints'
    labels = _forbidden(changed)
    return f"is not allowed to modify labels: {', '.join(labels)}" if labels else ""


def _forbidden(labels: Iterable[str]) -> list[str]:
    return sorted(label for label in labels if not _may_set(label))


def _may_set(label: str) -> bool:
    namespace, slash, _ = label.partition("/")
    if not slash:
        return True
    if _is_below(namespace, _RESTRICTED):
        return False
    if not (_is_below(namespace, "kubernetes.io") or _is_below(namespace, "k8s.io")):
        return True
    return label in _KUBELET_LABELS or any(_is_below(namespace, own) for own in _KUBELET_NAMESPACES)


def _is_below(namespace: str, domain: str) -> bool:
    return namespace == domain or namespace.endswith(f".{domain}")


def _claim(node: str, new: MaybeObject, old: MaybeObject) -> str:
    if _unchangeable(new or {}) == _unchangeable(old or {}):
        return ""
    return f'node "{node}" is not allowed to update fields other than status.capacity and status.conditions'


def _unchangeable(claim: Mapping[str, Any]) -> Any:
    doors = ("capacity", "conditions", "allocatedResourceStatuses", "allocatedResources")
    status = {name: value for name, value in (claim.get("status") or {}).items() if name not in doors}
    metadata = {name: value for name, value in claim["metadata"].items() if name not in ("resourceVersion", "managedFields")}
    return metadata, claim.get("spec"), status


def _token(core: Core, call: Call, node: str, request: MaybeObject) -> str:
    reference = ((request or {}).get("spec") or {}).get("boundObjectRef") or {}
    if (reference.get("apiVersion"), reference.get("kind")) != ("v1", "Pod") or not reference.get("name"):
        return "node requested token not bound to a pod"
    uid = reference.get("uid")
    if not uid:
        return "node requested token with a pod binding without a uid"
    found = core.find("", "v1", "pods", reference["name"], call.namespace)
    if found is None:
        kind = core.registry.get("", "v1", "pods") or call.kind
        raise statuses.not_found(kind, reference["name"])
    if found.obj["metadata"]["uid"] != uid:
        return (
            f"the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and "
            "then recreated"
        )
    own = found.obj["spec"].get("nodeName") == node
    return "" if own else "node requested token bound to a pod scheduled on a different node"
