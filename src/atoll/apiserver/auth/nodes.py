"""Node authorisation: a kubelet reads what the pods bound to its node refer to, and no more (KEP "Scoped Kubelet API Access").

What kubelets do with all other resources is a list of rules, the same for every node. Of pods, an index by node is kept up to date by their
changes; the rest of the path (pod → claim → volume → secret) is looked up when asked. That a node writes only its own is the admission
plug-in's to see to (`admission/noderestriction.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from atoll.apiserver.auth import references
from atoll.apiserver.auth.policy import NODE
from atoll.apiserver.auth.rules import Attributes, Rule
from atoll.apiserver.call import User
from atoll.apiserver.core import Core
from atoll.apiserver.machinery.items import Event
from atoll.client.signers import NODE_PREFIX, NODES_GROUP

LEASE_NAMESPACE = "kube-node-lease"
MIRROR = "kubernetes.io/config.mirror"
_UNRELATED = "no relationship found between node '{}' and this object"
_READS = ("get", "list", "watch")
_OWN = ("get", "create", "update", "patch", "delete")


def node_name(user: User) -> str | None:
    """The node a user is, "" for one of the nodes that does not say which, None for all others."""
    if NODES_GROUP not in user.groups:
        return None
    return user.name.removeprefix(NODE_PREFIX) if user.name.startswith(NODE_PREFIX) else ""


class NodeAuthorizer:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._pods: dict[str, set[str]] = {}  # by node
        self._rules = [Rule.parse(rule) for rule in NODE]
        self._judges: dict[tuple[str, str], Callable[[str, Attributes, str], str]] = {
            ("", "secrets"): self._readable,
            ("", "configmaps"): self._readable,
            ("", "persistentvolumeclaims"): self._claim,
            ("", "persistentvolumes"): self._gettable,
            ("resource.k8s.io", "resourceclaims"): self._gettable,
            ("storage.k8s.io", "volumeattachments"): self._gettable,
            ("", "serviceaccounts"): self._token,
            ("coordination.k8s.io", "leases"): self._lease,
            ("storage.k8s.io", "csinodes"): self._csi_node,
            ("resource.k8s.io", "resourceslices"): self._slice,
            ("", "nodes"): self._node,
            ("", "pods"): self._pod,
        }
        kind = core.registry.get("", "v1", "pods")
        assert kind is not None
        cacher = core.cacher(kind)
        for item in cacher.items():
            self._pods.setdefault(_node_of(item.obj), set()).add(item.key)
        cacher.listen(self._follow)

    def refusal(self, user: User, wanted: Attributes) -> str | None:
        """None where the user is a node that may; else why not, "" where there is nothing to say."""
        name = node_name(user)
        if not name:
            return "" if name is None else f'unknown node for user "{user.name}"'
        if not wanted.path:
            resource, _, subresource = wanted.resource.partition("/")
            judge = self._judges.get((wanted.group, resource))
            if judge is not None:
                return judge(name, wanted, subresource) or None
        return None if any(rule.allows(wanted) for rule in self._rules) else ""

    # Each answers why not: "" for yes.

    def _readable(self, node: str, wanted: Attributes, subresource: str) -> str:
        if wanted.verb not in _READS:
            return "can only read resources of this type"
        if subresource:
            return "cannot read subresource"
        return self._related(node, wanted) if wanted.namespace else "can only read namespaced object of this type"

    def _gettable(self, node: str, wanted: Attributes, subresource: str) -> str:
        if wanted.verb != "get":
            return "can only get individual resources of this type"
        return "cannot get subresource" if subresource else self._related(node, wanted)

    def _claim(self, node: str, wanted: Attributes, subresource: str) -> str:
        if subresource != "status":
            return self._gettable(node, wanted, subresource)
        return self._related(node, wanted) if wanted.verb in ("update", "patch") else "can only get/update/patch this type"

    def _token(self, node: str, wanted: Attributes, subresource: str) -> str:
        if wanted.verb != "create" or not wanted.name:
            return "can only create tokens for individual service accounts"
        return self._related(node, wanted) if subresource == "token" else "can only create token subresource of serviceaccount"

    def _lease(self, node: str, wanted: Attributes, _: str) -> str:
        if wanted.verb not in _OWN:
            return "can only get, create, update, patch, or delete a node lease"
        if wanted.namespace != LEASE_NAMESPACE:
            return f'can only access leases in the "{LEASE_NAMESPACE}" system namespace'
        own = wanted.verb == "create" or wanted.name == node
        return "" if own else "can only access node lease with the same name as the requesting node"

    def _csi_node(self, node: str, wanted: Attributes, subresource: str) -> str:
        if wanted.verb not in _OWN:
            return "can only get, create, update, patch, or delete a CSINode"
        if subresource:
            return "cannot authorize CSINode subresources"
        own = wanted.verb == "create" or wanted.name == node
        return "" if own else "can only access CSINode with the same name as the requesting node"

    def _slice(self, node: str, wanted: Attributes, subresource: str) -> str:
        if subresource:
            return "cannot authorize ResourceSlice subresources"
        if wanted.verb in ("watch", "list", "deletecollection"):
            own = wanted.node == node
            return "" if own else "can only list/watch/deletecollection resourceslices with nodeName field selector"
        return "" if wanted.verb == "create" else self._related(node, wanted)

    def _node(self, node: str, wanted: Attributes, subresource: str) -> str:
        if subresource in ("", "status") and wanted.verb in ("update", "patch"):
            return ""
        if not subresource and wanted.verb == "create":
            return ""
        if subresource or wanted.verb not in _READS:
            return "the node authorizer does not allow this"
        if wanted.name == node:
            return ""
        what = f"'{wanted.name}'" if wanted.name else "all nodes"
        return f"node '{node}' cannot read {what}, only its own Node object"

    def _pod(self, node: str, wanted: Attributes, subresource: str) -> str:
        verb = wanted.verb
        if (subresource, verb) in (("status", "update"), ("status", "patch"), ("eviction", "create"), ("", "create"), ("", "delete")):
            return ""
        if subresource or verb not in _READS:
            return "the node authorizer does not allow this"
        if verb != "get" and wanted.node == node:
            return ""
        if verb == "get" or wanted.name:
            return self._related(node, wanted)
        return "can only list/watch pods with spec.nodeName field selector"

    def _related(self, node: str, wanted: Attributes) -> str:
        if not wanted.name:
            return "No Object name found"
        resource = wanted.resource.partition("/")[0]
        if resource == "volumeattachments":
            found = self._names_node("storage.k8s.io", resource, wanted.name, node)
        elif resource == "resourceslices":
            found = self._names_node("resource.k8s.io", resource, wanted.name, node)
        elif resource == "persistentvolumes":
            found = any(volume == wanted.name for volume, _ in self._volumes(node))
        elif resource == "pods":
            found = f"{wanted.namespace}/{wanted.name}" in self._pods.get(node, ())
        else:
            found = self._refers(node, resource, wanted.namespace, wanted.name)
        return "" if found else _UNRELATED.format(node)

    def _refers(self, node: str, resource: str, namespace: str, name: str) -> bool:
        pods = list(self._of_node(node, namespace))
        if resource == "serviceaccounts":
            return any((pod["spec"].get("serviceAccountName") or "") == name for pod in pods)
        names: Mapping[str, Callable[[Mapping[str, Any]], Iterable[str]]] = {
            "secrets": references.secrets,
            "configmaps": references.config_maps,
            "persistentvolumeclaims": references.claims,
            "resourceclaims": references.resource_claims,
        }
        if any(name in names[resource](pod) for pod in pods):
            return True
        return resource == "secrets" and any((namespace, name) in secrets for _, secrets in self._volumes(node))

    def _of_node(self, node: str, namespace: str = "") -> Iterator[Mapping[str, Any]]:
        """The pods bound to a node; mirror pods, which the node makes itself, give it no rights."""
        for key in self._pods.get(node, ()):
            if namespace and not key.startswith(f"{namespace}/"):
                continue
            item = self._core.find("", "v1", "pods", key)
            if item is not None and MIRROR not in (item.obj["metadata"].get("annotations") or {}):
                yield item.obj

    def _volumes(self, node: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """The volumes that claims of the node's pods are bound to, and the secrets these refer to."""
        for pod in self._of_node(node):
            namespace = pod["metadata"]["namespace"]
            for name in references.claims(pod):
                claim = self._core.find("", "v1", "persistentvolumeclaims", name, namespace) if name else None
                bound = (claim.obj["spec"].get("volumeName") or "") if claim else ""
                volume = self._core.find("", "v1", "persistentvolumes", bound) if bound else None
                if volume is not None:
                    yield bound, list(references.secrets_of_volume(volume.obj, namespace))

    def _names_node(self, group: str, plural: str, name: str, node: str) -> bool:
        item = self._core.find(group, "v1", plural, name)
        return item is not None and item.obj["spec"].get("nodeName") == node

    def _follow(self, event: Event) -> None:
        before = _node_of(event.previous.obj) if event.previous is not None else None
        after = None if event.deleted else _node_of(event.item.obj)
        if before == after:
            return
        if before is not None:
            self._pods.get(before, set()).discard(event.item.key)
        if after is not None:
            self._pods.setdefault(after, set()).add(event.item.key)


def _node_of(pod: Mapping[str, Any]) -> str:
    """Nothing for a pod that no scheduler has bound yet; nodes have no empty names."""
    return str((pod.get("spec") or {}).get("nodeName") or "")
