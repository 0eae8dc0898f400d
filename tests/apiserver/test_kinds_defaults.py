from __future__ import annotations

from typing import Any

import pytest
from kinds_samples import claim, created, deployment, kind_of, pod, service, told

from atoll.apiserver.kinds import rules_for
from atoll.apiserver.kinds.pod_defaults import pull_policy


def spec_of(obj: dict[str, Any]) -> dict[str, Any]:
    stored, causes = created(obj)
    assert told(causes) == []
    spec: dict[str, Any] = stored["spec"]
    return spec


def test_a_pod_gets_upstreams_defaults() -> None:
    stored, causes = created(pod())
    assert causes == []
    assert stored["spec"] == {
        "containers": [
            {
                "name": "web",
                "image": "nginx",
                "imagePullPolicy": "Always",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }
    assert stored["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert stored["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_requests_follow_limits_and_decide_the_quality_of_service() -> None:
    limited = {"name": "a", "image": "b:1", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}
    stored, _ = created(pod(containers=[limited]))
    assert stored["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    assert stored["status"]["qosClass"] == "Guaranteed"
    asking = {"name": "a", "image": "b:1", "resources": {"requests": {"cpu": "1"}}}
    assert created(pod(containers=[asking]))[0]["status"]["qosClass"] == "Burstable"


def test_probes_ports_and_volumes() -> None:
    container = {
        "name": "a",
        "image": "b:1",
        "ports": [{"containerPort": 80}],
        "livenessProbe": {"httpGet": {"port": 80}},
        "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    }
    volumes = [
        {"name": "s", "secret": {"secretName": "x"}},
        {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        {"name": "h", "hostPath": {"path": "/x"}},
        {"name": "e"},
    ]
    spec = spec_of(pod(containers=[container], volumes=volumes))
    stored = spec["containers"][0]
    assert stored["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert stored["livenessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert stored["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    secret, projected, host, empty = spec["volumes"]
    assert secret["secret"]["defaultMode"] == 420
    assert projected["projected"] == {
        "defaultMode": 420,
        "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}],
    }
    assert host["hostPath"]["type"] == ""
    assert empty == {"name": "e", "emptyDir": {}}


def test_a_deployment_gets_upstreams_defaults_and_its_template_no_pod_only_ones() -> None:
    stored, causes = created(deployment())
    assert causes == []
    spec = stored["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    assert "enableServiceLinks" not in spec["template"]["spec"]
    assert stored["status"] == {}


def test_defaulting_twice_changes_nothing() -> None:
    for obj in (pod(), deployment(), service(type="NodePort", sessionAffinity="ClientIP"), claim()):
        stored, _ = created(obj)
        again = kind_of(obj).schema.validate(stored).object
        before = repr(again)
        rules_for(kind_of(obj)).default(again)
        assert repr(again) == before


def test_services() -> None:
    spec = spec_of(service(type="NodePort", sessionAffinity="ClientIP", ports=[{"port": 80, "targetPort": "http"}]))
    assert spec == {
        "type": "NodePort",
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}],
        "internalTrafficPolicy": "Cluster",
        "externalTrafficPolicy": "Cluster",
    }
    assert spec_of(service())["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]


def test_volumes_claims_and_classes() -> None:
    assert spec_of(claim())["volumeMode"] == "Filesystem"
    volume = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
    stored = spec_of({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": volume})
    assert (stored["persistentVolumeReclaimPolicy"], stored["volumeMode"]) == ("Retain", "Filesystem")
    storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "c"}, "provisioner": "p"}
    made, causes = created(storage)
    assert causes == []
    assert (made["reclaimPolicy"], made["volumeBindingMode"]) == ("Delete", "Immediate")


def test_a_secrets_string_data_becomes_data() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "d"}, "stringData": {"a": "hi"}}
    stored, causes = created(secret)
    assert causes == []
    assert (stored["type"], stored["data"]) == ("Opaque", {"a": "aGk="})
    assert "stringData" not in stored


def test_a_namespace_carries_its_name_and_its_finalizer() -> None:
    stored, causes = created({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "books"}})
    assert causes == []
    assert stored["metadata"]["labels"] == {"kubernetes.io/metadata.name": "books"}
    assert (stored["spec"], stored["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})


def test_a_job_selects_its_pods_by_its_uid() -> None:
    template = {"spec": {"containers": [{"name": "a", "image": "b:1"}], "restartPolicy": "Never"}}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j", "namespace": "d", "uid": "u1"},
        "spec": {"template": template},
    }
    stored, causes = created(job)
    assert told(causes) == []
    spec = stored["spec"]
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}}
    assert spec["template"]["metadata"]["labels"] == {
        "batch.kubernetes.io/controller-uid": "u1",
        "controller-uid": "u1",
        "batch.kubernetes.io/job-name": "j",
        "job-name": "j",
    }
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (1, 1, 6)
    assert (spec["completionMode"], spec["suspend"], spec["podReplacementPolicy"]) == ("NonIndexed", False, "TerminatingOrFailed")


def test_other_workloads() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "b:1"}]}}
    body = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    stateful = spec_of({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "s", "namespace": "d"}, "spec": dict(body)})
    assert stateful["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    assert stateful["podManagementPolicy"] == "OrderedReady"
    assert stateful["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    daemon = spec_of({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "s", "namespace": "d"}, "spec": dict(body)})
    assert daemon["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    job = {"template": {"spec": {"containers": [{"name": "a", "image": "b:1"}], "restartPolicy": "OnFailure"}}}
    cron = {"schedule": "*/5 * * * *", "jobTemplate": {"spec": job}}
    stored = spec_of({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c", "namespace": "d"}, "spec": cron})
    assert (stored["concurrencyPolicy"], stored["successfulJobsHistoryLimit"], stored["failedJobsHistoryLimit"]) == ("Allow", 3, 1)


def test_bindings_name_their_groups() -> None:
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "b:1", "namespace": "d"},
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "d"}],
    }
    stored, causes = created(binding)
    assert told(causes) == []
    assert stored["roleRef"]["apiGroup"] == stored["subjects"][0]["apiGroup"] == "rbac.authorization.k8s.io"
    assert "apiGroup" not in stored["subjects"][1]


def test_nodes_are_created_with_their_status() -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2"}}}
    stored, causes = created(node)
    assert causes == []
    assert stored["status"] == {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}
