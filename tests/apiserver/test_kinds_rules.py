from __future__ import annotations

import copy
from typing import Any

import pytest
from kinds_samples import claim, created, deployment, kind_of, pod, service, told, updated

from atoll.apiserver.kinds import rules_for


def problems(obj: dict[str, Any]) -> list[str]:
    return told(created(obj)[1])


SUBDOMAIN = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an"


def test_names_are_dns_subdomains() -> None:
    bad = pod()
    bad["metadata"]["name"] = "Web_1"
    (problem,) = problems(bad)
    assert problem.startswith(f'metadata.name: Invalid value: "Web_1": {SUBDOMAIN}')
    del bad["metadata"]["name"]
    assert problems(bad) == ["metadata.name: Required value: name or generateName is required"]


def test_a_name_of_a_service_is_a_1035_label() -> None:
    bad = service()
    bad["metadata"]["name"] = "1web"
    (problem,) = problems(bad)
    assert "a DNS-1035 label must consist of" in problem


def test_labels_annotations_and_owners() -> None:
    bad = pod()
    bad["metadata"] |= {"labels": {"a b": "c", "ok": "x" * 64}, "annotations": {"-": ""}, "ownerReferences": [{"name": "x"}]}
    paths = [problem.partition(":")[0] for problem in problems(bad)]
    assert paths == [
        "metadata.labels",
        "metadata.labels",
        "metadata.annotations",
        "metadata.ownerReferences[0].apiVersion",
        "metadata.ownerReferences[0].kind",
        "metadata.ownerReferences[0].uid",
    ]


def container(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "image": "b:1", **fields}


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"containers": []}, "spec.containers: Required value"),
        ({"containers": [{"name": "a"}]}, "spec.containers[0].image: Required value"),
        ({"containers": [{"image": "b:1"}]}, "spec.containers[0].name: Required value"),
        ({"containers": [container(), container()]}, 'spec.containers[1].name: Duplicate value: "a"'),
        (
            {"restartPolicy": "Sometimes"},
            'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"',
        ),
        (
            {"containers": [container(imagePullPolicy="Later")]},
            'spec.containers[0].imagePullPolicy: Unsupported value: "Later": supported values: "Always", "IfNotPresent", "Never"',
        ),
        (
            {"containers": [container(ports=[{"containerPort": 70000}])]},
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            {"containers": [container(ports=[{"containerPort": 80, "protocol": "ICMP"}])]},
            'spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"',
        ),
        (
            {"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/x"}])]},
            'spec.containers[0].volumeMounts[0].name: Not found: "v"',
        ),
        (
            {"containers": [container(env=[{"name": "A=B"}])]},
            (
                'spec.containers[0].env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable '
                "ASCII characters other than '='"
            ),
        ),
        (
            {"containers": [container(env=[{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])]},
            'spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty',
        ),
        (
            {"containers": [container(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "2"}})]},
            'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
        ),
        (
            {"containers": [container(resources={"requests": {"memory": "-1"}})]},
            'spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0',
        ),
        (
            {"containers": [container(readinessProbe={"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}})]},
            "spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        (
            {"containers": [container(livenessProbe={})]},
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        ({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]}, 'spec.volumes[1].name: Duplicate value: "v"'),
        (
            {"volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}}]},
            "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ),
        ({"volumes": [{"name": "v", "persistentVolumeClaim": {}}]}, "spec.volumes[0].persistentVolumeClaim.claimName: Required value"),
        (
            {"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]},
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            {"initContainers": [container(name="i", livenessProbe={"tcpSocket": {"port": 1}})]},
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
        (
            {"dnsPolicy": "None"},
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
        ),
        ({"hostUsers": False, "hostIPC": True}, "spec.hostIPC: Forbidden: when `hostUsers` is false"),
        (
            {"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]},
            "spec.tolerations[0].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'",
        ),
    ],
)
def test_rules_of_pods(spec: dict[str, Any], problem: str) -> None:
    assert problems(pod(**spec)) == [problem]


def stored_pod(**spec: Any) -> dict[str, Any]:
    stored, causes = created(pod(**spec))
    assert told(causes) == []
    return stored


def test_a_running_pod_may_get_another_image_and_more_tolerations() -> None:
    old = stored_pod()
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["image"] = "nginx:2"
    new["spec"]["tolerations"] = [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]
    after, causes = updated(old, new)
    assert told(causes) == []
    assert after["metadata"]["generation"] == 2


def test_nothing_else_of_a_pods_spec_may_change() -> None:
    old = stored_pod()
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["command"] = ["x"]
    (problem,) = told(updated(old, new)[1])
    assert problem.startswith("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,")
    new = copy.deepcopy(old)
    new["spec"]["containers"].append({"name": "b", "image": "c:1"})
    (problem,) = told(updated(old, new)[1])
    assert problem == "spec.containers: Forbidden: pod updates may not add or remove containers"


def test_status_and_spec_are_written_through_different_doors() -> None:
    old = stored_pod()
    new = copy.deepcopy(old)
    new["spec"]["nodeName"] = "other"
    new["status"] = {"phase": "Running"}
    new["metadata"]["annotations"] = {"seen": "yes"}
    new["metadata"]["finalizers"] = ["a/b"]
    after, causes = updated(old, new, "status")
    assert told(causes) == []
    assert after["spec"] == old["spec"]
    assert after["status"] == {"phase": "Running", "qosClass": "BestEffort"}
    assert after["metadata"]["annotations"] == {"seen": "yes"}
    assert "finalizers" not in after["metadata"]
    assert after["metadata"]["generation"] == 1
    after, _ = updated(old, {**old, "status": {"phase": "Failed"}})
    assert after["status"] == old["status"]


def test_ephemeral_containers_are_only_added() -> None:
    old = stored_pod()
    new = copy.deepcopy(old)
    new["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "busybox:1"}]
    new["spec"]["nodeName"] = "ignored"
    after, causes = updated(old, new, "ephemeralcontainers")
    assert told(causes) == []
    assert "nodeName" not in after["spec"]
    assert told(updated(after, old, "ephemeralcontainers")[1]) == [
        'spec.ephemeralContainers: Forbidden: existing ephemeral containers "debug" may not be removed\n'
    ]


def test_a_resize_changes_resources_alone() -> None:
    old = stored_pod(containers=[container(resources={"requests": {"cpu": "1"}})])
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2"
    new["spec"]["containers"][0]["image"] = "other"
    after, causes = updated(old, new, "resize")
    assert told(causes) == []
    assert after["spec"]["containers"][0]["image"] == "b:1"
    assert after["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "2"}}


def test_deployments() -> None:
    assert problems(deployment(selector={"matchLabels": {"app": "other"}})) == [
        'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`'
    ]
    assert problems(deployment(selector={})) == ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
    missing = deployment()
    del missing["spec"]["selector"]
    assert problems(missing) == ["spec.selector: Required value"]
    assert problems(deployment(replicas=-1)) == ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
    never = deployment()
    never["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    assert problems(never) == ['spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"']
    both = {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}
    assert problems(deployment(strategy=both)) == [
        "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"
    ]


def test_a_selector_is_immutable_and_a_change_of_spec_counts() -> None:
    old, _ = created(deployment())
    new = copy.deepcopy(old)
    new["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    new["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    assert told(updated(old, new)[1]) == ['spec.selector: Invalid value: {"matchLabels":{"app":"other"}}: field is immutable']
    new = copy.deepcopy(old)
    new["spec"]["replicas"] = 3
    after, causes = updated(old, new)
    assert (told(causes), after["metadata"]["generation"]) == ([], 2)
    labelled = copy.deepcopy(after)
    labelled["metadata"]["labels"] = {"a": "b"}
    assert updated(after, labelled)[0]["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"ports": []}, "spec.ports: Required value"),
        ({"ports": [{"port": 80}, {"port": 81}]}, "spec.ports[0].name: Required value"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        ({"ports": [{"port": 80, "nodePort": 30000}]}, "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"),
        (
            {"type": "Tunnel"},
            'spec.type: Unsupported value: "Tunnel": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"',
        ),
        ({"type": "ExternalName", "ports": []}, "spec.externalName: Required value"),
        (
            {"type": "NodePort", "clusterIP": "None"},
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
        ({"sessionAffinity": "Cookie"}, 'spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"'),
    ],
)
def test_rules_of_services(spec: dict[str, Any], problem: str) -> None:
    assert problem in problems(service(**spec))


def test_a_services_address_stays() -> None:
    old, _ = created(service(clusterIP="10.96.0.10"))
    new = copy.deepcopy(old)
    new["spec"]["clusterIP"] = "10.96.0.11"
    assert told(updated(old, new)[1]) == ['spec.clusterIPs[0]: Invalid value: ["10.96.0.11"]: may not change once set']
    del new["spec"]["clusterIP"]
    assert told(updated(old, new)[1]) == []


def test_claims() -> None:
    assert problems(claim(accessModes=[])) == ["spec.accessModes: Required value: at least 1 access mode is required"]
    assert problems(claim(resources={})) == ["spec.resources[storage]: Required value"]
    assert problems(claim(resources={"requests": {"storage": "0"}})) == [
        'spec.resources[storage]: Invalid value: "0": must be greater than zero'
    ]
    old, _ = created(claim())
    named = copy.deepcopy(old)
    named["spec"]["volumeName"] = "v"
    assert told(updated(old, named)[1]) == []
    moved = copy.deepcopy(named)
    moved["spec"]["volumeName"] = "w"
    (problem,) = told(updated(named, moved)[1])
    assert problem.startswith("spec: Forbidden: spec is immutable after creation")


def test_secrets_and_config_maps() -> None:
    keys = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d"}, "data": {"a/b": "x"}}
    (problem,) = problems(keys)
    assert problem.startswith('data[a/b]: Invalid value: "a/b": a valid config key must consist of')
    tls = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c", "namespace": "d"}, "type": "kubernetes.io/tls"}
    assert problems(tls) == ["data[tls.crt]: Required value", "data[tls.key]: Required value"]
    old, _ = created({**keys, "data": {"a": "x"}, "immutable": True})
    assert told(updated(old, {**old, "data": {"a": "y"}})[1]) == ["data: Forbidden: field is immutable when `immutable` is set"]


def test_jobs_and_cron_jobs() -> None:
    template = {"spec": {"containers": [container()], "restartPolicy": "Always"}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "d", "uid": "u"}, "spec": {"template": template}}
    assert problems(job) == ['spec.template.spec.restartPolicy: Unsupported value: "Always": supported values: "OnFailure", "Never"']
    template["spec"]["restartPolicy"] = "Never"
    old, _ = created(job)
    new = copy.deepcopy(old)
    new["spec"]["template"]["spec"]["containers"][0]["image"] = "other:1"
    (problem,) = told(updated(old, new)[1])
    assert problem.startswith("spec.template: Invalid value:")
    assert problem.endswith("field is immutable")
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c", "namespace": "d"}}
    cron["spec"] = {"schedule": "61 * * * *", "jobTemplate": {"spec": {"template": template}}}
    assert problems(cron) == ['spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61']
    for schedule in ("@hourly", "0 3 * * mon-fri", "*/5 1,2 1-31/2 jan *", "0 0 * * 7"):
        cron["spec"] = {"schedule": schedule, "jobTemplate": {"spec": {"template": template}}}
        assert problems(cron) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"succeededIndexes": "0-1,3"}, ""),
        ({"succeededIndexes": "0-1,3", "succeededCount": 3}, ""),
        ({"succeededIndexes": "0-1,3", "succeededCount": 4}, "succeededCount: Invalid value: 4: must be less than or equal to 3"),
        ({"succeededCount": 6}, "succeededCount: Invalid value: 6: must be less than or equal to 5 (the value of completions)"),
        ({}, "at least one of succeededCount or succeededIndexes"),
        ({"succeededIndexes": "0-99999999999"}, 'cannot convert string to an index below 5: "99999999999"'),
        ({"succeededIndexes": "1-7"}, 'too large index: "7"'),
        ({"succeededIndexes": "1-2-3"}, "at most two parts"),
        ({"succeededIndexes": "3,1"}, "non-increasing order, previous: 3, current: 1"),
        ({"succeededIndexes": "3-1"}, "non-increasing order, previous: 3, current: 1"),
        ({"succeededIndexes": "\N{ARABIC-INDIC DIGIT THREE}"}, "cannot convert string"),
        ({"succeededIndexes": "1," * 40_000}, "may not be more than 65536"),
    ],
)
def test_success_policies(more: dict[str, Any], words: str) -> None:
    template = {"spec": {"containers": [container()], "restartPolicy": "Never"}}
    spec = {"template": template, "completions": 5, "completionMode": "Indexed", "successPolicy": {"rules": [more]}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "d", "uid": "u"}, "spec": spec}
    found = problems(job)
    assert len(found) == bool(words)
    assert words in "".join(found)
    assert any("successPolicy" in each for each in problems({**job, "spec": {**spec, "completionMode": "NonIndexed"}}))


def test_more_indexes_than_there_may_be() -> None:
    template = {"spec": {"containers": [container()], "restartPolicy": "Never"}}
    spec = {"template": template, "completions": 2**31 - 1, "completionMode": "Indexed", "parallelism": 100_001}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "d", "uid": "u"}, "spec": spec}
    (problem,) = problems(job)
    assert problem.startswith("spec.parallelism: Invalid value: 100001: must be less than or equal to 100000")
    spec |= {"parallelism": 10_001, "backoffLimitPerIndex": 1}
    assert [each.partition(":")[0] for each in problems(job)] == ["spec.maxFailedIndexes", "spec.parallelism"]


def test_roles_and_bindings() -> None:
    group = "rbac.authorization.k8s.io/v1"
    role = {"apiVersion": group, "kind": "Role", "metadata": {"name": "r", "namespace": "d"}, "rules": [{"apiGroups": [""]}]}
    assert problems(role) == [
        "rules[0].verbs: Required value: verbs must contain at least one value",
        "rules[0].resources: Required value: resource rules must supply at least one resource",
    ]
    binding = {"apiVersion": group, "kind": "RoleBinding", "metadata": {"name": "r", "namespace": "d"}}
    old, causes = created({**binding, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "Robot", "name": "x"}]})
    assert told(causes) == ['subjects[0].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group"']
    new = copy.deepcopy(old)
    new["roleRef"]["name"] = "other"
    assert any(problem.endswith("cannot change roleRef") for problem in told(updated(old, new)[1]))


def test_ingresses() -> None:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    ingress: dict[str, Any] = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i", "namespace": "d"}}
    assert problems({**ingress, "spec": {}}) == ["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"]
    routes = {"rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "backend": backend}]}}]}
    assert problems({**ingress, "spec": routes}) == ["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]
    routes["rules"][0]["http"]["paths"][0]["pathType"] = "Prefix"  # type: ignore[index]
    assert problems({**ingress, "spec": routes}) == []


def test_field_selectors() -> None:
    obj = pod(nodeName="n1")
    obj["status"] = {"phase": "Running", "podIP": "10.0.0.1"}
    fields = rules_for(kind_of(obj)).selectable_fields(obj)
    assert fields["metadata.name"] == "web"
    assert fields["metadata.namespace"] == "default"
    assert (fields["spec.nodeName"], fields["status.phase"], fields["status.podIP"]) == ("n1", "Running", "10.0.0.1")
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"}, "reason": "Killing"}
    fields = rules_for(kind_of(event)).selectable_fields(event)
    assert (fields["involvedObject.kind"], fields["reason"], fields["type"]) == ("Pod", "Killing", "")


def test_a_finalizer_cannot_be_added_to_an_object_that_is_being_deleted() -> None:
    old = stored_pod()
    old["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"] = ["a/b", "c/d"]
    (problem,) = told(updated(old, new)[1])
    assert "no new finalizers can be added if the object is being deleted" in problem


SPECIAL = [
    ("127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
    ("::1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
    ("::ffff:127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
    ("0.0.0.0", "may not be unspecified (0.0.0.0)"),
    ("::", "may not be unspecified (::)"),
    ("169.254.169.254", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
    ("fe80::1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
    ("224.0.0.1", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ("ff02::1", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ("fd00::1%eth0", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
    ("10.1.2.3", None),
    ("2001:db8::1", None),
]


@pytest.mark.parametrize(("address", "why"), SPECIAL)
def test_addresses_that_lead_to_the_caller_are_no_endpoints(address: str, why: str | None) -> None:
    metadata = {"name": "web", "namespace": "default"}
    subsets = [{"notReadyAddresses": [{"ip": address}], "ports": [{"port": 80}]}]
    family = "IPv6" if ":" in address else "IPv4"
    sliced = {"addressType": family, "endpoints": [{"addresses": [address]}], "ports": [{"port": 80}]}
    for path, obj in (
        ("subsets[0].notReadyAddresses[0].ip", {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}),
        ("endpoints[0].addresses[0]", {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, **sliced}),
        ("spec.externalIPs[0]", service(externalIPs=[address])),
    ):
        assert problems(obj) == ([f'{path}: Invalid value: "{address}": {why}'] if why else [])
