"""Per-kind rules, found by group and kind; a kind's module is imported when the first object of the kind is written."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from atoll.apiserver.kinds.rules import Rules
from atoll.apiserver.machinery.kind import Kind

_COMMON = Rules()

# (group, kind) → module, or module:name where it has the rules of several kinds.
_MODULES = {
    ("", "ConfigMap"): "configmap",
    ("", "Endpoints"): "endpoints",
    ("", "Event"): "event",
    ("", "LimitRange"): "limitrange",
    ("", "Namespace"): "namespace",
    ("", "Node"): "node",
    ("", "PersistentVolume"): "persistentvolume",
    ("", "PersistentVolumeClaim"): "persistentvolumeclaim",
    ("", "Pod"): "pod",
    ("", "PodTemplate"): "generic:POD_TEMPLATE",
    ("", "ReplicationController"): "replicationcontroller",
    ("", "ResourceQuota"): "limitrange:QUOTA_RULES",
    ("", "Secret"): "secret",
    ("", "Service"): "service",
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): "admissionpolicy:MUTATING",
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): "admissionpolicy:MUTATING_BINDING",
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): "webhooks:MUTATING",
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): "admissionpolicy:VALIDATING",
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): "admissionpolicy:VALIDATING_BINDING",
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): "webhooks:VALIDATING",
    ("apiextensions.k8s.io", "CustomResourceDefinition"): "customresourcedefinition",
    ("apiregistration.k8s.io", "APIService"): "apiservice",
    ("apps", "DaemonSet"): "daemonset",
    ("apps", "Deployment"): "deployment",
    ("apps", "ReplicaSet"): "replicaset",
    ("apps", "StatefulSet"): "statefulset",
    ("autoscaling", "HorizontalPodAutoscaler"): "horizontalpodautoscaler",
    ("batch", "CronJob"): "cronjob",
    ("batch", "Job"): "job",
    ("certificates.k8s.io", "CertificateSigningRequest"): "certificatesigningrequest",
    ("coordination.k8s.io", "Lease"): "lease",
    ("discovery.k8s.io", "EndpointSlice"): "endpoints:SLICE_RULES",
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): "flowcontrol:FLOW_SCHEMA",
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): "flowcontrol:PRIORITY_LEVEL",
    ("networking.k8s.io", "Ingress"): "ingress",
    ("networking.k8s.io", "IngressClass"): "ingress:CLASS_RULES",
    ("networking.k8s.io", "IPAddress"): "servicecidr:IP_ADDRESS",
    ("networking.k8s.io", "NetworkPolicy"): "networkpolicy",
    ("networking.k8s.io", "ServiceCIDR"): "servicecidr:SERVICE_CIDR",
    ("policy", "PodDisruptionBudget"): "poddisruptionbudget",
    ("rbac.authorization.k8s.io", "ClusterRole"): "rbac:CLUSTER_ROLE",
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): "rbac:CLUSTER_ROLE_BINDING",
    ("rbac.authorization.k8s.io", "Role"): "rbac:ROLE",
    ("rbac.authorization.k8s.io", "RoleBinding"): "rbac:ROLE_BINDING",
    ("scheduling.k8s.io", "PriorityClass"): "priorityclass",
    ("storage.k8s.io", "CSIDriver"): "storage:CSI_DRIVER",
    ("storage.k8s.io", "VolumeAttachment"): "storage:VOLUME_ATTACHMENT",
    ("storage.k8s.io", "StorageClass"): "storageclass",
}


def rules_for(kind: Kind) -> Rules:
    """The rules of a kind; those common to all kinds where it has none of its own."""
    if kind.builtin:
        return _rules(kind.group, kind.kind)
    found = getattr(kind.schema, "rules", _COMMON)
    assert isinstance(found, Rules)
    return found


@cache
def _rules(group: str, kind: str) -> Rules:
    module, _, name = _MODULES.get((group, kind), "").partition(":")
    if not module:
        return _COMMON
    found = getattr(import_module(f"{__name__}.{module}"), name or "RULES")
    assert isinstance(found, Rules)
    return found
