"""The names that say of a resource that its API operations are supported: one table, one test a name."""

import pytest
from conformance_operations import check_operations

from atoll.client.resources import (
    CRON_JOBS,
    CSI_DRIVERS,
    ENDPOINT_SLICES,
    INGRESS_CLASSES,
    INGRESSES,
    PRIORITY_CLASSES,
    RUNTIME_CLASSES,
    STORAGE_CLASSES,
    Resource,
)

ADMISSION = "admissionregistration.k8s.io"
FLOWS = "flowcontrol.apiserver.k8s.io"
FLOW_SCHEMAS = Resource(FLOWS, "v1", "flowschemas", False, "FlowSchema")
PRIORITY_LEVELS = Resource(FLOWS, "v1", "prioritylevelconfigurations", False, "PriorityLevelConfiguration")
VALIDATING = Resource(ADMISSION, "v1", "validatingadmissionpolicies", False, "ValidatingAdmissionPolicy")
VALIDATING_BINDINGS = Resource(ADMISSION, "v1", "validatingadmissionpolicybindings", False, "ValidatingAdmissionPolicyBinding")
MUTATING = Resource(ADMISSION, "v1", "mutatingadmissionpolicies", False, "MutatingAdmissionPolicy")
MUTATING_BINDINGS = Resource(ADMISSION, "v1", "mutatingadmissionpolicybindings", False, "MutatingAdmissionPolicyBinding")
CAPACITIES = Resource("storage.k8s.io", "v1", "csistoragecapacities", True, "CSIStorageCapacity")
ATTRIBUTES = Resource("storage.k8s.io", "v1", "volumeattributesclasses", False, "VolumeAttributesClass")
DEVICE_CLASSES = Resource("resource.k8s.io", "v1", "deviceclasses", False, "DeviceClass")
CLAIMS = Resource("resource.k8s.io", "v1", "resourceclaims", True, "ResourceClaim")
CLAIM_TEMPLATES = Resource("resource.k8s.io", "v1", "resourceclaimtemplates", True, "ResourceClaimTemplate")
SLICES = Resource("resource.k8s.io", "v1", "resourceslices", False, "ResourceSlice")

RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
CONSTRAINTS = {"resourceRules": [RULE], "namespaceSelector": {"matchLabels": {"conformance": "nowhere"}}}
POD = {"containers": [{"name": "c", "image": "busybox"}], "restartPolicy": "OnFailure"}
REQUESTS = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "example"}}]}}


TABLE = [
    (
        "[sig-api-machinery] API priority and fairness should support FlowSchema API operations [Conformance]",
        FLOW_SCHEMAS,
        {
            "spec": {
                "matchingPrecedence": 10000,
                "priorityLevelConfiguration": {"name": "global-default"},
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [
                    {
                        "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
                        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                    }
                ],
            }
        },
        {"matchingPrecedence": 9998},
    ),
    (
        "[sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations [Conformance]",
        PRIORITY_LEVELS,
        {"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}},
        {"limited": {"nominalConcurrencyShares": 4}},
    ),
    (
        (
            "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicy API "
            "operations [Conformance]"
        ),
        VALIDATING,
        {"spec": {"matchConstraints": CONSTRAINTS, "validations": [{"expression": "object.spec.replicas > 1"}]}},
        {"failurePolicy": "Ignore"},
    ),
    (
        (
            "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicyBinding "
            "API operations [Conformance]"
        ),
        VALIDATING_BINDINGS,
        {"spec": {"policyName": "replicalimit-policy.example.com", "validationActions": ["Deny"]}},
        {"validationActions": ["Warn"]},
    ),
    (
        (
            "[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicy API "
            "operations [Conformance]"
        ),
        MUTATING,
        {
            "spec": {
                "matchConstraints": CONSTRAINTS,
                "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": '[JSONPatch{op: "add", path: "/x", value: "y"}]'}}],
            }
        },
        {"reinvocationPolicy": "IfNeeded"},
    ),
    (
        (
            "[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicyBinding API "
            "operations [Conformance]"
        ),
        MUTATING_BINDINGS,
        {"spec": {"policyName": "replicalimit-policy.example.com"}},
        {"policyName": "other.example.com"},
    ),
    (
        "[sig-apps] CronJob should support CronJob API operations [Conformance]",
        CRON_JOBS,
        {
            "spec": {
                "schedule": "*/1 * * * *",
                "suspend": True,
                "concurrencyPolicy": "Allow",
                "jobTemplate": {"spec": {"template": {"spec": POD}}},
            }
        },
    ),
    (
        "[sig-network] Ingress API should support creating Ingress API operations [Conformance]",
        INGRESSES,
        {"spec": {"defaultBackend": {"service": {"name": "svc", "port": {"number": 80}}}}},
    ),
    (
        "[sig-network] IngressClass API should support creating IngressClass API operations [Conformance]",
        INGRESS_CLASSES,
        {"spec": {"controller": "example.com/controller"}},
    ),
    (
        "[sig-network] EndpointSlice should support creating EndpointSlice API operations [Conformance]",
        ENDPOINT_SLICES,
        {"addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4", "5.6.7.8"]}]},
    ),
    ("[sig-node] RuntimeClass should support RuntimeClasses API operations [Conformance]", RUNTIME_CLASSES, {"handler": "myhandler"}),
    (
        (
            "[sig-scheduling] SchedulerPreemption [Serial] PriorityClass endpoints verify PriorityClass endpoints can be operated "
            "with different HTTP methods [Conformance]"
        ),
        PRIORITY_CLASSES,
        {"value": 1000, "description": "by a test"},
    ),
    (
        "[sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver [Conformance]",
        CSI_DRIVERS,
        {"spec": {"attachRequired": False, "podInfoOnMount": False, "volumeLifecycleModes": ["Ephemeral"]}},
    ),
    (
        "[sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations [Conformance]",
        CAPACITIES,
        {"storageClassName": "e2e-storage-class", "capacity": "1Gi", "nodeTopology": {"matchLabels": {"a": "b"}}},
    ),
    (
        "[sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass [Conformance]",
        STORAGE_CLASSES,
        {"provisioner": "e2e-fake-provisioner", "parameters": {"type": "io1"}, "volumeBindingMode": "Immediate"},
    ),
    (
        (
            "[sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a "
            "VolumeAttributesClass [Conformance]"
        ),
        ATTRIBUTES,
        {"driverName": "e2e-fake-csi-driver", "parameters": {"foo": "bar"}},
    ),
    (
        "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass [Conformance]",
        DEVICE_CLASSES,
        {"spec": {"selectors": [{"cel": {"expression": 'device.driver == "example"'}}]}},
    ),
    ("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim [Conformance]", CLAIMS, {"spec": REQUESTS}),
    ("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate [Conformance]", CLAIM_TEMPLATES, {"spec": {"spec": REQUESTS}}),
    (
        "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice [Conformance]",
        SLICES,
        {
            "spec": {
                "driver": "dra.example.com",
                "nodeName": "node-a",
                "pool": {"name": "p", "resourceSliceCount": 1, "generation": 1},
                "devices": [{"name": "device-1"}],
            }
        },
    ),
]


@pytest.mark.parametrize(
    ("resource", "fields", "change"),
    [pytest.param(*row[1:3], row[3] if row[3:] else None, marks=pytest.mark.conformance(row[0]), id=row[1].plural) for row in TABLE],
)
def test_every_verb_is_served(api, ns, resource, fields, change):
    door = api.at(resource, ns if resource.namespaced else None)
    names = [f"{resource.plural}-{number}" for number in range(3)]
    if resource == CSI_DRIVERS:
        names = [f"{name}.example.com" for name in names]
    check_operations(door, *(door.make(name, **fields) for name in names), change=change)
