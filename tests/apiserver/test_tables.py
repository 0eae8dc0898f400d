from __future__ import annotations

from typing import Any

import pytest
from kinds_samples import REGISTRY, deployment, kind_of, service

from atoll.apiserver.machinery import tables
from atoll.apiserver.machinery.kind import Column
from atoll.apiserver.machinery.table_custom import evaluate
from atoll.apiserver.machinery.table_format import human_duration, seconds_of
from atoll.errors import InvalidInput

CREATED = "2026-01-01T00:00:00Z"
NOW = seconds_of(CREATED) + 300


def row(obj: dict[str, Any]) -> dict[str, Any]:
    obj.setdefault("metadata", {}).setdefault("creationTimestamp", CREATED)
    kind = kind_of(obj)
    names = [column["name"] for column in tables.column_definitions(kind)]
    cells = tables.cells(kind, obj, NOW)
    assert len(names) == len(cells)
    return dict(zip(names, cells, strict=True))


def test_every_kind_has_as_many_cells_as_columns_even_for_a_bare_object() -> None:
    for kind in REGISTRY:
        cells = tables.cells(kind, {"metadata": {"name": "x"}}, NOW)
        assert len(cells) == len(tables.column_definitions(kind)), kind
        assert "x" in cells


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (11000, "3h3m"),
        (28800, "8h"),
        (172799, "47h"),
        (172800, "2d"),
        (180000, "2d2h"),
        (691200, "8d"),
        (63072000, "2y"),
        (66000000, "2y33d"),
        (252288000, "8y"),
    ],
)
def test_durations(seconds: int, shown: str) -> None:
    assert human_duration(seconds) == shown


def test_deployments() -> None:
    obj = {**deployment(replicas=3), "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}}
    assert list(row(obj).values()) == ["web", "2/3", 3, 2, "5m", "web", "nginx:1", "app=web"]


@pytest.mark.parametrize(
    ("spec", "external", "ports"),
    [
        ({"type": "ClusterIP"}, "<none>", "80/TCP"),
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]}, "<none>", "80:30080/TCP"),
        ({"type": "LoadBalancer"}, "<pending>", "80/TCP"),
        ({"type": "ExternalName", "externalName": "a.b", "ports": []}, "a.b", "<none>"),
        ({"type": "ClusterIP", "externalIPs": ["1.2.3.4"]}, "1.2.3.4", "80/TCP"),
    ],
)
def test_services(spec: dict[str, Any], external: str, ports: str) -> None:
    shown = row(service(**spec))
    assert (shown["External-IP"], shown["Port(s)"]) == (external, ports)


def test_nodes() -> None:
    node: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/worker": ""}},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6", "containerRuntimeVersion": "atoll://1"},
        },
    }
    assert list(row(node).values()) == [
        "n",
        "Ready,SchedulingDisabled",
        "control-plane,worker",
        "5m",
        "v1.36.0",
        "10.0.0.1",
        "<none>",
        "Debian",
        "6",
        "atoll://1",
    ]


def test_claims_volumes_and_classes() -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c"},
        "spec": {"volumeName": "v", "storageClassName": "local", "volumeMode": "Filesystem"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]},
    }
    assert list(row(claim).values()) == ["c", "Bound", "v", "1Gi", "RWO,RWX", "local", "<unset>", "5m", "Filesystem"]
    storage = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "p",
    }
    assert list(row(storage).values()) == ["local (default)", "p", "Delete", "Immediate", False, "5m"]


def test_jobs_and_cron_jobs() -> None:
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j"},
        "spec": {"completions": 1},
        "status": {
            "succeeded": 1,
            "startTime": "2026-01-01T00:00:00Z",
            "completionTime": "2026-01-01T00:00:07Z",
            "conditions": [{"type": "Complete", "status": "True"}],
        },
    }
    assert list(row(job).values())[:5] == ["j", "Complete", "1/1", "7s", "5m"]
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "suspend": False}}
    assert list(row(cron).values())[:7] == ["c", "* * * * *", "<none>", "False", 0, "<none>", "5m"]


def test_events_of_both_groups() -> None:
    old = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{web}"},
        "reason": "Pulled",
        "type": "Normal",
        "message": "done\n",
        "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2026-01-01T00:03:00Z",
        "lastTimestamp": "2026-01-01T00:04:00Z",
        "count": 2,
    }
    expected = ["60s", "Normal", "Pulled", "pod/web", "spec.containers{web}", "kubelet, n", "done", "2m", 2, "e"]
    assert list(row(old).values()) == expected
    names = {"involvedObject": "regarding", "message": "note", "source": "deprecatedSource", "count": "deprecatedCount"}
    names |= {"firstTimestamp": "deprecatedFirstTimestamp", "lastTimestamp": "deprecatedLastTimestamp"}
    new = {names.get(field, field): value for field, value in old.items()} | {"apiVersion": "events.k8s.io/v1"}
    assert list(row(new).values()) == expected


def test_endpoints_show_three_and_count_the_rest() -> None:
    addresses = [{"ip": f"10.0.0.{number}"} for number in range(1, 6)]
    endpoints = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "e"},
        "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}],
    }
    assert row(endpoints)["Endpoints"] == "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."


def test_autoscalers() -> None:
    resource = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
    hpa: dict[str, Any] = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 5,
            "metrics": [{"type": "Resource", "resource": resource}],
        },
    }
    assert list(row(hpa).values()) == ["h", "Deployment/web", "cpu: <unknown>/80%", "1", 5, 0, "5m"]
    current = {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12}}}
    assert row({**hpa, "status": {"currentMetrics": [current], "currentReplicas": 2}})["Targets"] == "cpu: 12%/80%"


def test_custom_columns() -> None:
    import dataclasses

    kind = REGISTRY.get("", "v1", "configmaps")
    assert kind
    columns = (Column("Size", "integer", path=".spec.size"), Column("Ready", path='.status.conditions[?(@.type=="Ready")].status'))
    custom = dataclasses.replace(kind, columns=(*columns, Column("Age", "date", path=".metadata.creationTimestamp")), builtin=False)
    obj = {
        "metadata": {"name": "x", "creationTimestamp": CREATED},
        "spec": {"size": 3},
        "status": {"conditions": [{"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]},
    }
    assert tables.cells(custom, obj, NOW) == ["x", 3, "True", "5m"]
    assert tables.cells(custom, {"metadata": {"name": "y"}}, NOW) == ["y", None, None, None]
    assert [column["name"] for column in tables.column_definitions(custom)] == ["Name", "Size", "Ready", "Age"]


@pytest.mark.parametrize(
    ("path", "found"),
    [(".a.b", [1]), (".c[*]", [1, 2]), (".c[-1]", [2]), (".['x.y']", [3]), (".x\\.y", [3]), (".no", []), ("{.a.b}", [1])],
)
def test_json_paths(path: str, found: list[Any]) -> None:
    obj = {"a": {"b": 1}, "c": [1, 2], "x.y": 3}
    assert evaluate(path.replace(".[", "["), obj) == found


def test_a_json_path_beyond_the_subset_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not supported"):
        evaluate(".a..b", {})
