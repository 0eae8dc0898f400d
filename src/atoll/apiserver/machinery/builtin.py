"""The table of built-in kinds: every resource of Kubernetes 1.36 that is generally available, as `kubectl api-resources` shows them.

Order matters: groups stand in the order in which the API server lists them (its group priorities), the preferred version first, resources
by name. A row is: plural, kind, scope, then what differs from the usual.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from atoll.apiserver.machinery.kind import STANDARD_VERBS, GroupVersionKind, Kind, Subresource
from atoll.apiserver.machinery.schemas import BuiltinSchema

_NAMESPACED, _CLUSTER = True, False
_CHANGE = ("get", "patch", "update")
_CREATE = ("create",)
_STREAM = ("create", "get")
_PROXY = ("create", "delete", "get", "patch", "update")
_NO_COLLECTION = ("create", "delete", "get", "list", "patch", "update", "watch")
_ALL = ("all",)
_API_EXTENSIONS = ("api-extensions",)
_SCALE = GroupVersionKind("autoscaling", "v1", "Scale")


def _core(kind: str) -> GroupVersionKind:
    return GroupVersionKind("", "v1", kind)


def _kind(
    plural: str,
    kind: str,
    namespaced: bool,
    *short_names: str,
    categories: tuple[str, ...] = (),
    verbs: tuple[str, ...] = STANDARD_VERBS,
    own: tuple[str, ...] = (),
    others: tuple[Subresource, ...] = (),
    stored_as: str = "",
    deprecation: str = "",
) -> Kind:
    """`own` are subresources whose body is the resource itself and that are read, patched and updated. The table's key adds the group."""
    subresources = [*(Subresource(name, GroupVersionKind("", "", kind), _CHANGE) for name in own), *others]
    return Kind(
        group="",
        version="",
        plural=plural,
        kind=kind,
        namespaced=namespaced,
        schema=BuiltinSchema("", "", kind),
        short_names=short_names,
        categories=categories,
        verbs=verbs,
        subresources=tuple(sorted(subresources, key=lambda sub: sub.name)),
        singular=kind.lower(),
        list_kind=f"{kind}List",
        storage_group_version=stored_as,
        deprecation=deprecation,
    )


_STATUS = ("status",)
_SCALED = (Subresource("scale", _SCALE, _CHANGE),)

_TABLE: dict[str, tuple[Kind, ...]] = {
    "v1": (
        _kind("bindings", "Binding", _NAMESPACED, verbs=_CREATE),
        _kind(
            "componentstatuses",
            "ComponentStatus",
            _CLUSTER,
            "cs",
            verbs=("get", "list"),
            deprecation="v1 ComponentStatus is deprecated in v1.19+",
        ),
        _kind("configmaps", "ConfigMap", _NAMESPACED, "cm"),
        _kind(
            "endpoints",
            "Endpoints",
            _NAMESPACED,
            "ep",
            deprecation="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        ),
        _kind("events", "Event", _NAMESPACED, "ev"),
        _kind("limitranges", "LimitRange", _NAMESPACED, "limits"),
        _kind(
            "namespaces",
            "Namespace",
            _CLUSTER,
            "ns",
            verbs=_NO_COLLECTION,
            own=_STATUS,
            others=(Subresource("finalize", _core("Namespace"), ("update",)),),
        ),
        _kind("nodes", "Node", _CLUSTER, "no", own=_STATUS, others=(Subresource("proxy", _core("NodeProxyOptions"), _PROXY),)),
        _kind("persistentvolumeclaims", "PersistentVolumeClaim", _NAMESPACED, "pvc", own=_STATUS),
        _kind("persistentvolumes", "PersistentVolume", _CLUSTER, "pv", own=_STATUS),
        _kind(
            "pods",
            "Pod",
            _NAMESPACED,
            "po",
            categories=_ALL,
            own=("ephemeralcontainers", "resize", "status"),
            others=(
                Subresource("attach", _core("PodAttachOptions"), _STREAM),
                Subresource("binding", _core("Binding"), _CREATE),
                Subresource("eviction", GroupVersionKind("policy", "v1", "Eviction"), _CREATE, older=("policy/v1beta1",)),
                Subresource("exec", _core("PodExecOptions"), _STREAM),
                Subresource("log", _core("Pod"), ("get",)),
                Subresource("portforward", _core("PodPortForwardOptions"), _STREAM),
                Subresource("proxy", _core("PodProxyOptions"), _PROXY),
            ),
        ),
        _kind("podtemplates", "PodTemplate", _NAMESPACED),
        _kind("replicationcontrollers", "ReplicationController", _NAMESPACED, "rc", categories=_ALL, own=_STATUS, others=_SCALED),
        _kind("resourcequotas", "ResourceQuota", _NAMESPACED, "quota", own=_STATUS),
        _kind("secrets", "Secret", _NAMESPACED),
        _kind(
            "serviceaccounts",
            "ServiceAccount",
            _NAMESPACED,
            "sa",
            others=(Subresource("token", GroupVersionKind("authentication.k8s.io", "v1", "TokenRequest"), _CREATE),),
        ),
        _kind(
            "services",
            "Service",
            _NAMESPACED,
            "svc",
            categories=_ALL,
            own=_STATUS,
            others=(Subresource("proxy", _core("ServiceProxyOptions"), _PROXY),),
        ),
    ),
    "apiregistration.k8s.io/v1": (_kind("apiservices", "APIService", _CLUSTER, categories=_API_EXTENSIONS, own=_STATUS),),
    "apps/v1": (
        _kind("controllerrevisions", "ControllerRevision", _NAMESPACED),
        _kind("daemonsets", "DaemonSet", _NAMESPACED, "ds", categories=_ALL, own=_STATUS),
        _kind("deployments", "Deployment", _NAMESPACED, "deploy", categories=_ALL, own=_STATUS, others=_SCALED),
        _kind("replicasets", "ReplicaSet", _NAMESPACED, "rs", categories=_ALL, own=_STATUS, others=_SCALED),
        _kind("statefulsets", "StatefulSet", _NAMESPACED, "sts", categories=_ALL, own=_STATUS, others=_SCALED),
    ),
    "events.k8s.io/v1": (_kind("events", "Event", _NAMESPACED, "ev", stored_as="v1"),),
    "authentication.k8s.io/v1": (
        _kind("selfsubjectreviews", "SelfSubjectReview", _CLUSTER, verbs=_CREATE),
        _kind("tokenreviews", "TokenReview", _CLUSTER, verbs=_CREATE),
    ),
    "authorization.k8s.io/v1": (
        _kind("localsubjectaccessreviews", "LocalSubjectAccessReview", _NAMESPACED, verbs=_CREATE),
        _kind("selfsubjectaccessreviews", "SelfSubjectAccessReview", _CLUSTER, verbs=_CREATE),
        _kind("selfsubjectrulesreviews", "SelfSubjectRulesReview", _CLUSTER, verbs=_CREATE),
        _kind("subjectaccessreviews", "SubjectAccessReview", _CLUSTER, verbs=_CREATE),
    ),
    "autoscaling/v2": (_kind("horizontalpodautoscalers", "HorizontalPodAutoscaler", _NAMESPACED, "hpa", categories=_ALL, own=_STATUS),),
    "autoscaling/v1": (
        _kind(
            "horizontalpodautoscalers",
            "HorizontalPodAutoscaler",
            _NAMESPACED,
            "hpa",
            categories=_ALL,
            own=_STATUS,
            stored_as="autoscaling/v2",
        ),
    ),
    "batch/v1": (
        _kind("cronjobs", "CronJob", _NAMESPACED, "cj", categories=_ALL, own=_STATUS),
        _kind("jobs", "Job", _NAMESPACED, categories=_ALL, own=_STATUS),
    ),
    "certificates.k8s.io/v1": (
        _kind("certificatesigningrequests", "CertificateSigningRequest", _CLUSTER, "csr", own=("approval", "status")),
    ),
    "networking.k8s.io/v1": (
        _kind("ingressclasses", "IngressClass", _CLUSTER),
        _kind("ingresses", "Ingress", _NAMESPACED, "ing", own=_STATUS),
        _kind("ipaddresses", "IPAddress", _CLUSTER, "ip"),
        _kind("networkpolicies", "NetworkPolicy", _NAMESPACED, "netpol"),
        _kind("servicecidrs", "ServiceCIDR", _CLUSTER, own=_STATUS),
    ),
    "policy/v1": (_kind("poddisruptionbudgets", "PodDisruptionBudget", _NAMESPACED, "pdb", own=_STATUS),),
    "rbac.authorization.k8s.io/v1": (
        _kind("clusterrolebindings", "ClusterRoleBinding", _CLUSTER),
        _kind("clusterroles", "ClusterRole", _CLUSTER),
        _kind("rolebindings", "RoleBinding", _NAMESPACED),
        _kind("roles", "Role", _NAMESPACED),
    ),
    "storage.k8s.io/v1": (
        _kind("csidrivers", "CSIDriver", _CLUSTER),
        _kind("csinodes", "CSINode", _CLUSTER),
        _kind("csistoragecapacities", "CSIStorageCapacity", _NAMESPACED),
        _kind("storageclasses", "StorageClass", _CLUSTER, "sc"),
        _kind("volumeattachments", "VolumeAttachment", _CLUSTER, own=_STATUS),
        _kind("volumeattributesclasses", "VolumeAttributesClass", _CLUSTER, "vac"),
    ),
    "admissionregistration.k8s.io/v1": (
        _kind("mutatingadmissionpolicies", "MutatingAdmissionPolicy", _CLUSTER, categories=_API_EXTENSIONS),
        _kind("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", _CLUSTER, categories=_API_EXTENSIONS),
        _kind("mutatingwebhookconfigurations", "MutatingWebhookConfiguration", _CLUSTER, categories=_API_EXTENSIONS),
        _kind("validatingadmissionpolicies", "ValidatingAdmissionPolicy", _CLUSTER, categories=_API_EXTENSIONS, own=_STATUS),
        _kind("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", _CLUSTER, categories=_API_EXTENSIONS),
        _kind("validatingwebhookconfigurations", "ValidatingWebhookConfiguration", _CLUSTER, categories=_API_EXTENSIONS),
    ),
    "apiextensions.k8s.io/v1": (
        _kind(
            "customresourcedefinitions",
            "CustomResourceDefinition",
            _CLUSTER,
            "crd",
            "crds",
            categories=_API_EXTENSIONS,
            own=_STATUS,
        ),
    ),
    "scheduling.k8s.io/v1": (_kind("priorityclasses", "PriorityClass", _CLUSTER, "pc"),),
    "coordination.k8s.io/v1": (_kind("leases", "Lease", _NAMESPACED),),
    "node.k8s.io/v1": (_kind("runtimeclasses", "RuntimeClass", _CLUSTER),),
    "discovery.k8s.io/v1": (_kind("endpointslices", "EndpointSlice", _NAMESPACED),),
    "flowcontrol.apiserver.k8s.io/v1": (
        _kind("flowschemas", "FlowSchema", _CLUSTER, own=_STATUS),
        _kind("prioritylevelconfigurations", "PriorityLevelConfiguration", _CLUSTER, own=_STATUS),
    ),
    "resource.k8s.io/v1": (
        _kind("deviceclasses", "DeviceClass", _CLUSTER),
        _kind("resourceclaims", "ResourceClaim", _NAMESPACED, own=_STATUS),
        _kind("resourceclaimtemplates", "ResourceClaimTemplate", _NAMESPACED),
        _kind("resourceslices", "ResourceSlice", _CLUSTER),
    ),
}


def builtin_kinds() -> Iterator[Kind]:
    for api_version, kinds in _TABLE.items():
        group, _, version = api_version.rpartition("/")
        for kind in kinds:
            subresources = tuple(
                replace(sub, gvk=GroupVersionKind(group, version, kind.kind)) if not sub.gvk.version else sub for sub in kind.subresources
            )
            yield replace(
                kind,
                group=group,
                version=version,
                schema=BuiltinSchema(group, version, kind.kind),
                subresources=subresources,
            )
