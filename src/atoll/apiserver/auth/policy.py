"""The roles and bindings every cluster is born with, as upstream's bootstrap policy: what the system's own users may do, and the three
roles (admin, edit, view) that people are given.

Pure data: `objects()` gives them as they are stored. Existing objects of these names are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from atoll.client.signers import SIGNERS

GROUP = "rbac.authorization.k8s.io"
_API = f"{GROUP}/v1"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_META = {
    "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
    "annotations": {AUTOUPDATE: "true"},
}
_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_ALL = (*_READ, *_WRITE)

Rule = dict[str, Any]


def _rule(group: str, resources: str, verbs: tuple[str, ...], *names: str) -> Rule:
    rule: Rule = {"verbs": list(verbs), "apiGroups": [group], "resources": resources.split()}
    return {**rule, "resourceNames": list(names)} if names else rule


def _paths(*paths: str) -> Rule:
    return {"verbs": ["get"], "nonResourceURLs": list(paths)}


_CORE_READ = (
    "bindings configmaps endpoints events limitranges namespaces namespaces/status persistentvolumeclaims persistentvolumeclaims/status "
    "pods pods/log pods/status replicationcontrollers replicationcontrollers/scale replicationcontrollers/status "
    "resourcequotas resourcequotas/status serviceaccounts services services/status"
)
_CORE_EDIT = (
    "configmaps endpoints events persistentvolumeclaims pods replicationcontrollers replicationcontrollers/scale secrets serviceaccounts "
    "services"
)
_APPS = "controllerrevisions daemonsets deployments deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale"
_APPS_READ = f"{_APPS} daemonsets/status deployments/status replicasets/status statefulsets/status"

VIEW: tuple[Rule, ...] = (
    _rule("", _CORE_READ, _READ),
    _rule("apps", _APPS_READ, _READ),
    _rule("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status", _READ),
    _rule("batch", "cronjobs cronjobs/status jobs jobs/status", _READ),
    _rule("discovery.k8s.io", "endpointslices", _READ),
    _rule("networking.k8s.io", "ingresses ingresses/status networkpolicies", _READ),
    _rule("policy", "poddisruptionbudgets poddisruptionbudgets/status", _READ),
    _rule("resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates", _READ),
)
EDIT: tuple[Rule, ...] = (
    *VIEW,
    _rule("", _CORE_EDIT, _WRITE),
    _rule("", "secrets", _READ),
    _rule("", "pods/attach pods/exec pods/portforward pods/proxy services/proxy", ("get", *_WRITE)),
    _rule("", "pods/eviction serviceaccounts/token", ("create",)),
    _rule("", "serviceaccounts", ("impersonate",)),
    _rule("apps", f"{_APPS} deployments/rollback".replace("controllerrevisions ", ""), _WRITE),
    _rule("autoscaling", "horizontalpodautoscalers", _WRITE),
    _rule("batch", "cronjobs jobs", _WRITE),
    _rule("coordination.k8s.io", "leases", _ALL),
    _rule("networking.k8s.io", "ingresses networkpolicies", _WRITE),
    _rule("policy", "poddisruptionbudgets", _WRITE),
    _rule("resource.k8s.io", "resourceclaims resourceclaimtemplates", _WRITE),
)
ADMIN: tuple[Rule, ...] = (
    *EDIT,
    _rule("authorization.k8s.io", "localsubjectaccessreviews", ("create",)),
    _rule(GROUP, "rolebindings roles", _ALL),
)
_EVENTS = (_rule("", "events", ("create", "patch", "update")), _rule("events.k8s.io", "events", ("create", "patch", "update")))
_AUTH_CHECKS = (
    _rule("authentication.k8s.io", "tokenreviews", ("create",)),
    _rule("authorization.k8s.io", "subjectaccessreviews localsubjectaccessreviews", ("create",)),
)
NODE: tuple[Rule, ...] = (
    *_AUTH_CHECKS,
    _rule("", "services", _READ),
    _rule("", "nodes", ("create", *_READ)),
    _rule("", "nodes/status nodes", ("patch", "update")),
    *_EVENTS,
    _rule("", "pods", _READ),
    _rule("", "pods", ("create", "delete")),
    _rule("", "pods/status", ("patch", "update")),
    _rule("", "pods/eviction", ("create",)),
    _rule("", "configmaps secrets", _READ),
    _rule("", "persistentvolumeclaims persistentvolumes", ("get",)),
    _rule("", "endpoints", ("get",)),
    _rule("certificates.k8s.io", "certificatesigningrequests", ("create", *_READ)),
    _rule("coordination.k8s.io", "leases", ("create", "delete", "get", "patch", "update")),
    _rule("storage.k8s.io", "volumeattachments", ("get",)),
    _rule("", "serviceaccounts/token", ("create",)),
    _rule("", "persistentvolumeclaims/status", ("get", "patch", "update")),
    _rule("storage.k8s.io", "csidrivers", _READ),
    _rule("storage.k8s.io", "csinodes", ("create", "delete", "get", "patch", "update")),
    _rule("node.k8s.io", "runtimeclasses", _READ),
    _rule("resource.k8s.io", "resourceclaims", ("get",)),
    _rule("resource.k8s.io", "resourceslices", (*_READ, "create", "update", "patch", "delete", "deletecollection")),
)
"""What the node authoriser grants every node alike; some of it is narrowed down to what the node's pods need. The role of the same rules
is there as upstream, and bound to nobody."""
_NODE_SERVICES: tuple[Rule, ...] = (
    # Service proxy and cluster DNS live in the node's process and call as the node; kube-proxy and CoreDNS have names of their own.
    _rule("discovery.k8s.io", "endpointslices", _READ),
)
_SCHEDULER: tuple[Rule, ...] = (
    *_AUTH_CHECKS,
    *_EVENTS,
    _rule("coordination.k8s.io", "leases", ("create", "get", "list", "patch", "update", "watch")),
    _rule("", "nodes namespaces services replicationcontrollers persistentvolumes", _READ),
    _rule("", "persistentvolumeclaims", (*_READ, "patch", "update")),
    _rule("", "pods", ("delete", *_READ)),
    _rule("", "bindings pods/binding", ("create",)),
    _rule("", "pods/status", ("patch", "update")),
    _rule("apps", "replicasets statefulsets", _READ),
    _rule("policy", "poddisruptionbudgets", _READ),
    _rule("resource.k8s.io", "deviceclasses resourceslices", _READ),
    _rule("resource.k8s.io", "resourceclaims resourceclaims/status", (*_READ, "patch", "update")),
    _rule("storage.k8s.io", "csidrivers csinodes csistoragecapacities storageclasses volumeattachments", _READ),
)
_EVERYTHING: tuple[Rule, ...] = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)
_DISCOVERY = _paths(
    "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"
)
_PUBLIC = _paths("/healthz", "/livez", "/livez/*", "/readyz", "/readyz/*", "/healthz/*", "/version", "/version/")
_DNS: tuple[Rule, ...] = (
    _rule("", "endpoints services pods namespaces", ("list", "watch")),
    _rule("", "nodes", ("get",)),
    _rule("discovery.k8s.io", "endpointslices", ("list", "watch")),
)
_PROXIER: tuple[Rule, ...] = (
    *_EVENTS,
    _rule("", "endpoints services nodes", _READ),
    _rule("discovery.k8s.io", "endpointslices", _READ),
    _rule("networking.k8s.io", "servicecidrs", _READ),
)
_REQUESTS = "system:certificates.k8s.io:certificatesigningrequests"
_JOINING = "Group system:bootstrappers:kubeadm:default-node-token"

CLUSTER_ROLES: dict[str, tuple[Rule, ...]] = {
    "cluster-admin": _EVERYTHING,
    "admin": ADMIN,
    "edit": EDIT,
    "view": VIEW,
    "system:discovery": (_DISCOVERY,),
    "system:public-info-viewer": (_PUBLIC,),
    "system:monitoring": (_paths("/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*"),),
    "system:basic-user": (
        _rule("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", ("create",)),
        _rule("authentication.k8s.io", "selfsubjectreviews", ("create",)),
    ),
    "system:node": NODE,
    "atoll:node-services": _NODE_SERVICES,
    "system:node-proxier": _PROXIER,
    "system:kube-scheduler": _SCHEDULER,
    "system:kube-controller-manager": _EVERYTHING[:1],
    "system:coredns": _DNS,
    "system:auth-delegator": _AUTH_CHECKS,
    "system:kubelet-api-admin": (
        _rule("", "nodes", _READ),
        _rule("", "nodes", ("proxy",)),
        _rule("", "nodes/log nodes/metrics nodes/proxy nodes/stats", ("*",)),
    ),
    "system:service-account-issuer-discovery": (
        _paths("/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/"),
    ),
    "system:node-bootstrapper": (_rule("certificates.k8s.io", "certificatesigningrequests", ("create", *_READ)),),
    f"{_REQUESTS}:nodeclient": (_rule("certificates.k8s.io", "certificatesigningrequests/nodeclient", ("create",)),),
    f"{_REQUESTS}:selfnodeclient": (_rule("certificates.k8s.io", "certificatesigningrequests/selfnodeclient", ("create",)),),
    **{
        f"system:certificates.k8s.io:{signer.partition('/')[2]}-approver": (_rule("certificates.k8s.io", "signers", ("approve",), signer),)
        for signer in SIGNERS
    },
    "system:aggregated-metrics-reader": (_rule("metrics.k8s.io", "pods nodes", _READ),),
}
# role → subjects, each "Group name" or "User name"
BINDINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cluster-admin": ("cluster-admin", ("Group system:masters",)),
    "system:discovery": ("system:discovery", ("Group system:authenticated",)),
    "system:basic-user": ("system:basic-user", ("Group system:authenticated",)),
    "system:public-info-viewer": ("system:public-info-viewer", ("Group system:authenticated", "Group system:unauthenticated")),
    "system:monitoring": ("system:monitoring", ("Group system:monitoring",)),
    "system:node": ("system:node", ()),
    "atoll:node-services": ("atoll:node-services", ("Group system:nodes",)),
    "system:node-proxier": ("system:node-proxier", ("User system:kube-proxy",)),
    "system:kube-scheduler": ("system:kube-scheduler", ("User system:kube-scheduler",)),
    "system:kube-controller-manager": ("system:kube-controller-manager", ("User system:kube-controller-manager",)),
    "system:coredns": ("system:coredns", ("User system:coredns",)),
    "system:service-account-issuer-discovery": ("system:service-account-issuer-discovery", ("Group system:serviceaccounts",)),
    # As kubeadm binds them: a machine with a bootstrap token gets a node's certificate, and a node renews its own.
    "kubeadm:kubelet-bootstrap": ("system:node-bootstrapper", (_JOINING,)),
    "kubeadm:node-autoapprove-bootstrap": (f"{_REQUESTS}:nodeclient", (_JOINING,)),
    "kubeadm:node-autoapprove-certificate-rotation": (f"{_REQUESTS}:selfnodeclient", ("Group system:nodes",)),
}
_AGGREGATE_TO = "rbac.authorization.k8s.io/aggregate-to-"
_AGGREGATED = ("admin", "edit", "view")  # grow by the roles with their label; what they hold from the start is a role of its own too
_AGGREGATE = {"view": {_AGGREGATE_TO + "edit": "true"}, "edit": {_AGGREGATE_TO + "admin": "true"}}


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """Plural and object, in an order in which they can be created."""
    for name, rules in CLUSTER_ROLES.items():
        yield "clusterroles", _cluster_role(name, rules, _AGGREGATE.get(name, {}))
        if name in _AGGREGATED:
            yield "clusterroles", _cluster_role(f"system:aggregate-to-{name}", rules, {_AGGREGATE_TO + name: "true"})
    for name, (role, subjects) in BINDINGS.items():
        listed = []
        for subject in subjects:
            kind, _, who = subject.partition(" ")
            listed.append({"kind": kind, "apiGroup": GROUP, "name": who})
        metadata = {"name": name, "labels": dict(_META["labels"]), "annotations": dict(_META["annotations"])}
        reference = {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}
        yield (
            "clusterrolebindings",
            {"kind": "ClusterRoleBinding", "apiVersion": _API, "metadata": metadata, "roleRef": reference, "subjects": listed},
        )

    yield from _reader()


def _reader() -> Iterator[tuple[str, dict[str, Any]]]:
    """Who may read by which certificates users are known: API servers behind this one are bound to it by their installers."""
    name, namespace = "extension-apiserver-authentication-reader", "kube-system"
    metadata = {"name": name, "namespace": namespace, "labels": dict(_META["labels"]), "annotations": dict(_META["annotations"])}
    rules = [_rule("", "configmaps", _READ, "extension-apiserver-authentication")]
    yield "roles", {"kind": "Role", "apiVersion": _API, "metadata": metadata, "rules": rules}
    users = [{"kind": "User", "apiGroup": GROUP, "name": user} for user in ("system:kube-controller-manager", "system:kube-scheduler")]
    reference = {"apiGroup": GROUP, "kind": "Role", "name": name}
    binding = {**metadata, "name": f"system::{name}"}
    yield "rolebindings", {"kind": "RoleBinding", "apiVersion": _API, "metadata": binding, "roleRef": reference, "subjects": users}


def _cluster_role(name: str, rules: tuple[dict[str, Any], ...], labels: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "labels": {**_META["labels"], **labels}, "annotations": dict(_META["annotations"])}
    role = {"kind": "ClusterRole", "apiVersion": _API, "metadata": metadata, "rules": [dict(rule) for rule in rules]}
    if name in _AGGREGATED:
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {_AGGREGATE_TO + name: "true"}}]}
    return role
