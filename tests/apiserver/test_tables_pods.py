"""The STATUS column of pods: golden cases of what containers may be doing."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.apiserver.machinery.table_format import Age, seconds_of
from atoll.apiserver.machinery.table_pods import pod

AGE = Age(seconds_of("2026-01-01T00:05:00Z"))
READY = {"type": "Ready", "status": "True"}


def waiting(reason: str, **more: Any) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason}}, **more}


def ended(**fields: Any) -> dict[str, Any]:
    return {"state": {"terminated": fields}}


def running(ready: bool = True, **more: Any) -> dict[str, Any]:
    return {"state": {"running": {}}, "ready": ready, **more}


def shown(
    mains: list[dict[str, Any]],
    inits: list[dict[str, Any]] | None = None,
    *,
    phase: str = "Running",
    deleted: bool = False,
    sidecars: bool = False,
    **status: Any,
) -> list[Any]:
    def named(prefix: str, statuses: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"name": f"{prefix}{index}", "restartCount": 0, **entry} for index, entry in enumerate(statuses)]

    policy = {"restartPolicy": "Always"} if sidecars else {}
    obj = {
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z", **({"deletionTimestamp": "x"} if deleted else {})},
        "spec": {
            "containers": [{"name": f"c{index}"} for index in range(max(len(mains), 1))],
            "initContainers": [{"name": f"i{index}", **policy} for index in range(len(inits or []))],
        },
        "status": {"phase": phase, "containerStatuses": named("c", mains), "initContainerStatuses": named("i", inits or []), **status},
    }
    return pod(obj, AGE)


@pytest.mark.parametrize(
    ("row", "ready", "reason"),
    [
        (shown([], phase="Pending"), "0/1", "Pending"),
        (shown([running()], conditions=[READY]), "1/1", "Running"),
        (shown([running(ready=False)]), "0/1", "Running"),
        (shown([waiting("ContainerCreating")], phase="Pending"), "0/1", "ContainerCreating"),
        (shown([waiting("ImagePullBackOff")], phase="Pending"), "0/1", "ImagePullBackOff"),
        (shown([waiting("CrashLoopBackOff")]), "0/1", "CrashLoopBackOff"),
        (shown([ended(reason="Completed", exitCode=0)], phase="Succeeded"), "0/1", "Completed"),
        (shown([ended(reason="Error", exitCode=1)], phase="Failed"), "0/1", "Error"),
        (shown([ended(reason="OOMKilled", exitCode=137)]), "0/1", "OOMKilled"),
        (shown([ended(exitCode=3)]), "0/1", "ExitCode:3"),
        (shown([ended(signal=9, exitCode=137)]), "0/1", "Signal:9"),
        (shown([running(), ended(reason="Completed", exitCode=0)], conditions=[READY]), "1/2", "Running"),
        (shown([running(), ended(reason="Completed", exitCode=0)]), "1/2", "NotReady"),
        (shown([waiting("PodInitializing")], [running(ready=False)], phase="Pending"), "0/1", "Init:0/1"),
        (shown([waiting("PodInitializing")], [ended(exitCode=0), waiting("PodInitializing")], phase="Pending"), "0/1", "Init:1/2"),
        (shown([], [waiting("CrashLoopBackOff")], phase="Pending"), "0/1", "Init:CrashLoopBackOff"),
        (shown([], [ended(reason="Error", exitCode=1)], phase="Pending"), "0/1", "Init:Error"),
        (shown([], [ended(exitCode=1)], phase="Pending"), "0/1", "Init:ExitCode:1"),
        (shown([running()], [running(started=True)], sidecars=True, conditions=[READY]), "2/2", "Running"),
        (shown([running()], deleted=True), "1/1", "Terminating"),
        (shown([ended(reason="Completed", exitCode=0)], phase="Succeeded", deleted=True), "0/1", "Completed"),
        (shown([], phase="Failed", reason="Evicted"), "0/1", "Evicted"),
        (shown([], phase="Running", reason="NodeLost", deleted=True), "0/1", "Unknown"),
        (shown([], phase="Pending", conditions=[{"type": "PodScheduled", "reason": "SchedulingGated"}]), "0/1", "SchedulingGated"),
    ],
)
def test_ready_and_status(row: list[Any], ready: str, reason: str) -> None:
    assert row[1:3] == [ready, reason]


def test_restarts_tell_how_long_ago() -> None:
    last = {"lastState": {"terminated": {"finishedAt": "2026-01-01T00:04:00Z"}}, "restartCount": 2}
    assert shown([running(**last)])[3:5] == ["2 (60s ago)", "5m"]
    assert shown([running(restartCount=1)])[3] == "1"


def test_wide_cells() -> None:
    assert shown([running()])[5:] == ["<none>", "<none>", "<none>", "<none>"]
    assert shown([running()], podIPs=[{"ip": "10.0.0.1"}])[5] == "10.0.0.1"
