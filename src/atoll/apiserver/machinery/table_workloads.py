"""Rows of what makes pods: deployments and its kin, jobs, autoscalers, disruption budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.machinery.table_format import (
    NONE,
    UNKNOWN,
    UNSET,
    Age,
    columns,
    condition,
    containers,
    flag,
    human_duration,
    is_deleted,
    labels,
    name_of,
    seconds_of,
    selector,
)

DEPLOYMENT = columns("Name, Ready, Up-to-date:int, Available:int, Age; Containers, Images, Selector")
REPLICA_SET = columns("Name, Desired:int, Current:int, Ready:int, Age; Containers, Images, Selector")
STATEFUL_SET = columns("Name, Ready, Age; Containers, Images")
DAEMON_SET = columns(
    "Name, Desired:int, Current:int, Ready:int, Up-to-date:int, Available:int, Node Selector, Age; Containers, Images, Selector"
)
JOB = columns("Name, Status, Completions, Duration, Age; Containers, Images, Selector")
CRON_JOB = columns("Name, Schedule, Timezone, Suspend, Active:int, Last Schedule, Age; Containers, Images, Selector")
CONTROLLER_REVISION = columns("Name, Controller, Revision:int, Age")
AUTOSCALER = columns("Name, Reference, Targets, MinPods, MaxPods, Replicas:int, Age")
BUDGET = columns("Name, Min Available, Max Unavailable, Allowed Disruptions:int, Age")
_JOB_STATES = ("Suspended", "FailureTarget", "SuccessCriteriaMet")
_METRICS_SHOWN = 2

Object = Mapping[str, Any]


def _parts(obj: Object) -> tuple[Object, Object, Object]:
    """Spec, status, and the spec of the pod template."""
    spec = obj.get("spec") or {}
    return spec, obj.get("status") or {}, (spec.get("template") or {}).get("spec") or {}


def deployment(obj: Object, age: Age) -> list[Any]:
    spec, status, pod = _parts(obj)
    return [
        name_of(obj),
        f"{status.get('readyReplicas') or 0}/{spec.get('replicas', 1)}",
        status.get("updatedReplicas") or 0,
        status.get("availableReplicas") or 0,
        age.of(obj),
        *containers(pod),
        selector(spec.get("selector")),
    ]


def replica_set(obj: Object, age: Age) -> list[Any]:
    spec, status, pod = _parts(obj)
    chosen = spec.get("selector")
    # A replication controller's selector is a plain map.
    shown = labels(chosen) if obj.get("kind") == "ReplicationController" else selector(chosen)
    counts = [spec.get("replicas", 1), status.get("replicas") or 0, status.get("readyReplicas") or 0]
    return [name_of(obj), *counts, age.of(obj), *containers(pod), shown]


def stateful_set(obj: Object, age: Age) -> list[Any]:
    spec, status, pod = _parts(obj)
    return [name_of(obj), f"{status.get('readyReplicas') or 0}/{spec.get('replicas', 1)}", age.of(obj), *containers(pod)]


def daemon_set(obj: Object, age: Age) -> list[Any]:
    spec, status, pod = _parts(obj)
    fields = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable")
    return [
        name_of(obj),
        *(status.get(field) or 0 for field in fields),
        labels(pod.get("nodeSelector")),
        age.of(obj),
        *containers(pod),
        selector(spec.get("selector")),
    ]


def job(obj: Object, age: Age) -> list[Any]:
    spec, status, pod = _parts(obj)
    done, wanted, parallel = status.get("succeeded") or 0, spec.get("completions"), spec.get("parallelism") or 0
    completions = f"{done}/{1 if wanted is None else wanted}"
    if wanted is None and parallel > 1:
        completions += f" of {parallel}"
    duration = ""
    if status.get("startTime"):
        end = status.get("completionTime")
        duration = human_duration((seconds_of(end) if end else age.now) - seconds_of(status["startTime"]))
    return [name_of(obj), _job_state(obj, status), completions, duration, age.of(obj), *containers(pod), selector(spec.get("selector"))]


def _job_state(obj: Object, status: Object) -> str:
    if condition(status, "Complete").get("status") == "True":
        return "Complete"
    if condition(status, "Failed").get("status") == "True":
        return "Failed"
    if is_deleted(obj):
        return "Terminating"
    return next((state for state in _JOB_STATES if condition(status, state).get("status") == "True"), "Running")


def cron_job(obj: Object, age: Age) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    inner = (spec.get("jobTemplate") or {}).get("spec") or {}
    last = status.get("lastScheduleTime")
    return [
        name_of(obj),
        spec.get("schedule") or "",
        spec.get("timeZone") or NONE,
        flag(spec.get("suspend")),
        len(status.get("active") or ()),
        age.since(last) if last else NONE,
        age.of(obj),
        *containers((inner.get("template") or {}).get("spec") or {}),
        selector(inner.get("selector")),
    ]


def controller_revision(obj: Object, age: Age) -> list[Any]:
    owners = (obj.get("metadata") or {}).get("ownerReferences") or ()
    owner = next((owner for owner in owners if owner.get("controller")), None)
    controller = NONE
    if owner:
        group = owner.get("apiVersion", "").rpartition("/")[0]
        controller = f"{owner.get('kind', '').lower()}{'.' + group if group else ''}/{owner.get('name')}"
    return [name_of(obj), controller, obj.get("revision") or 0, age.of(obj)]


def autoscaler(obj: Object, age: Age) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    target = spec.get("scaleTargetRef") or {}
    return [
        name_of(obj),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        _targets(spec.get("metrics") or (), status.get("currentMetrics") or ()),
        str(spec["minReplicas"]) if "minReplicas" in spec else UNSET,
        spec.get("maxReplicas") or 0,
        status.get("currentReplicas") or 0,
        age.of(obj),
    ]


def _targets(wanted: Any, current: Any) -> str:
    shown = []
    for index, metric in enumerate(wanted):
        kind = metric.get("type") or ""
        field = kind[:1].lower() + kind[1:]
        source = metric.get(field) or {}
        now = ((current[index].get(field) if index < len(current) else None) or {}).get("current") or {}
        target = source.get("target") or {}
        name = source.get("name")
        prefix = f"{name}: " if kind in ("Resource", "ContainerResource") else ""
        if "averageUtilization" in target:
            value = f"{now['averageUtilization']}%" if "averageUtilization" in now else UNKNOWN
            shown.append(f"{prefix}{value}/{target['averageUtilization']}%")
        elif "averageValue" in target:
            suffix = " (avg)" if kind in ("Object", "External") else ""
            shown.append(f"{prefix}{now.get('averageValue', UNKNOWN)}/{target['averageValue']}{suffix}")
        else:
            shown.append(f"{prefix}{now.get('value', UNKNOWN)}/{target.get('value', UNKNOWN)}")
    more = f" + {len(shown) - _METRICS_SHOWN} more..." if len(shown) > _METRICS_SHOWN else ""
    return ", ".join(shown[:_METRICS_SHOWN]) + more or NONE


def budget(obj: Object, age: Age) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    bounds = [str(spec[field]) if field in spec else "N/A" for field in ("minAvailable", "maxUnavailable")]
    return [name_of(obj), *bounds, status.get("disruptionsAllowed") or 0, age.of(obj)]
