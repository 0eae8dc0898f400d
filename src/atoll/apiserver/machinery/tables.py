"""Objects as rows: the columns `kubectl get` shows, computed on the server as upstream's printers do.

A kind's columns come from the table of printers below, from `Kind.columns` for custom resources, and are NAME and CREATED AT for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from atoll.apiserver.machinery import table_core as core
from atoll.apiserver.machinery import table_network as network
from atoll.apiserver.machinery import table_pods as pods
from atoll.apiserver.machinery import table_storage as storage
from atoll.apiserver.machinery import table_workloads as workloads
from atoll.apiserver.machinery.kind import Column, Kind
from atoll.apiserver.machinery.table_custom import custom_cells
from atoll.apiserver.machinery.table_format import Age, columns

Printer = tuple[tuple[Column, ...], Callable[[Mapping[str, Any], Age], list[Any]]]

_CREATED_AT = (*columns("Name"), Column("Created At", "date"))
_PRINTERS: dict[tuple[str, str], Printer] = {
    ("", "ComponentStatus"): (core.COMPONENT_STATUS, core.component_status),
    ("", "ConfigMap"): (core.CONFIG_MAP, core.config_map),
    ("", "Endpoints"): (network.ENDPOINTS, network.endpoints),
    ("", "Event"): (core.EVENT, core.event),
    ("", "Namespace"): (core.NAMESPACE, core.namespace),
    ("", "Node"): (core.NODE, core.node),
    ("", "PersistentVolume"): (storage.VOLUME, storage.volume),
    ("", "PersistentVolumeClaim"): (storage.CLAIM, storage.claim),
    ("", "Pod"): (pods.POD, pods.pod),
    ("", "PodTemplate"): (pods.POD_TEMPLATE, pods.pod_template),
    ("", "ReplicationController"): (workloads.REPLICA_SET, workloads.replica_set),
    ("", "ResourceQuota"): (core.RESOURCE_QUOTA, core.resource_quota),
    ("", "Secret"): (core.SECRET, core.secret),
    ("", "Service"): (network.SERVICE, network.service),
    ("", "ServiceAccount"): (core.SERVICE_ACCOUNT, core.service_account),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): (storage.MUTATING_POLICY, storage.policy),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): (storage.POLICY_BINDING, storage.policy_binding),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): (storage.WEBHOOKS, storage.webhooks),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): (storage.VALIDATING_POLICY, storage.policy),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): (storage.POLICY_BINDING, storage.policy_binding),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): (storage.WEBHOOKS, storage.webhooks),
    ("apiregistration.k8s.io", "APIService"): (storage.API_SERVICE, storage.api_service),
    ("apps", "ControllerRevision"): (workloads.CONTROLLER_REVISION, workloads.controller_revision),
    ("apps", "DaemonSet"): (workloads.DAEMON_SET, workloads.daemon_set),
    ("apps", "Deployment"): (workloads.DEPLOYMENT, workloads.deployment),
    ("apps", "ReplicaSet"): (workloads.REPLICA_SET, workloads.replica_set),
    ("apps", "StatefulSet"): (workloads.STATEFUL_SET, workloads.stateful_set),
    ("autoscaling", "HorizontalPodAutoscaler"): (workloads.AUTOSCALER, workloads.autoscaler),
    ("batch", "CronJob"): (workloads.CRON_JOB, workloads.cron_job),
    ("batch", "Job"): (workloads.JOB, workloads.job),
    ("certificates.k8s.io", "CertificateSigningRequest"): (core.SIGNING_REQUEST, core.signing_request),
    ("coordination.k8s.io", "Lease"): (core.LEASE, core.lease),
    ("discovery.k8s.io", "EndpointSlice"): (network.ENDPOINT_SLICE, network.endpoint_slice),
    ("events.k8s.io", "Event"): (core.EVENT, core.event),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): (storage.FLOW_SCHEMA, storage.flow_schema),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): (storage.PRIORITY_LEVEL, storage.priority_level),
    ("networking.k8s.io", "IPAddress"): (network.IP_ADDRESS, network.ip_address),
    ("networking.k8s.io", "Ingress"): (network.INGRESS, network.ingress),
    ("networking.k8s.io", "IngressClass"): (network.INGRESS_CLASS, network.ingress_class),
    ("networking.k8s.io", "NetworkPolicy"): (network.NETWORK_POLICY, network.network_policy),
    ("networking.k8s.io", "ServiceCIDR"): (network.SERVICE_CIDR, network.service_cidr),
    ("node.k8s.io", "RuntimeClass"): (core.RUNTIME_CLASS, core.runtime_class),
    ("policy", "PodDisruptionBudget"): (workloads.BUDGET, workloads.budget),
    ("rbac.authorization.k8s.io", "ClusterRole"): (core.ROLE, core.role),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): (core.ROLE_BINDING, core.role_binding),
    ("rbac.authorization.k8s.io", "Role"): (core.ROLE, core.role),
    ("rbac.authorization.k8s.io", "RoleBinding"): (core.ROLE_BINDING, core.role_binding),
    ("resource.k8s.io", "DeviceClass"): (storage.AGED, storage.aged),
    ("resource.k8s.io", "ResourceClaim"): (storage.RESOURCE_CLAIM, storage.resource_claim),
    ("resource.k8s.io", "ResourceClaimTemplate"): (storage.AGED, storage.aged),
    ("resource.k8s.io", "ResourceSlice"): (storage.RESOURCE_SLICE, storage.resource_slice),
    ("scheduling.k8s.io", "PriorityClass"): (core.PRIORITY_CLASS, core.priority_class),
    ("storage.k8s.io", "CSIDriver"): (storage.CSI_DRIVER, storage.csi_driver),
    ("storage.k8s.io", "CSINode"): (storage.CSI_NODE, storage.csi_node),
    ("storage.k8s.io", "StorageClass"): (storage.STORAGE_CLASS, storage.storage_class),
    ("storage.k8s.io", "VolumeAttachment"): (storage.ATTACHMENT, storage.attachment),
    ("storage.k8s.io", "VolumeAttributesClass"): (storage.ATTRIBUTES_CLASS, storage.attributes_class),
}


def column_definitions(kind: Kind) -> list[dict[str, Any]]:
    """`columnDefinitions` of a meta.k8s.io/v1 Table."""
    return [
        {"name": c.name, "type": c.type, "format": c.format, "description": c.description, "priority": c.priority} for c in _columns(kind)
    ]


def cells(kind: Kind, obj: Mapping[str, Any], now: float) -> list[Any]:
    """One row's cells, wide ones included. `now` is seconds since the epoch: ages are durations to it."""
    if kind.columns:
        return custom_cells(kind.columns, obj, Age(now))
    printer = _PRINTERS.get((kind.group, kind.kind)) if kind.builtin else None
    return printer[1](obj, Age(now)) if printer else core.role(obj, Age(now))


def _columns(kind: Kind) -> tuple[Column, ...]:
    if kind.columns:
        return (*columns("Name"), *kind.columns)
    printer = _PRINTERS.get((kind.group, kind.kind)) if kind.builtin else None
    return printer[0] if printer else _CREATED_AT
