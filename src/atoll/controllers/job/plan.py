"""When a job is over, and how many pods it should have until then. Pure.

The counters in the status are exact because a pod keeps the finalizer `batch.kubernetes.io/job-tracking` until it was counted: nothing
can delete it unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.client.objects import Object, is_deleting
from atoll.controllers.conditions import Conditions, find
from atoll.controllers.job.indexes import index_of
from atoll.controllers.pods import is_active, parse_time, phase_of

FINALIZER = "batch.kubernetes.io/job-tracking"
BACKOFF_BASE_S = 10.0  # between failed pods, doubling; upstream's
BACKOFF_MAX_S = 600.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a job ended."""

    kind: str  # Complete or Failed
    reason: str
    message: str


def parallelism(job: Object) -> int:
    return int(job["spec"].get("parallelism", 1))


def completions(job: Object) -> int | None:
    """None: any success completes it, once the others have ended (a work queue)."""
    value = job["spec"].get("completions")
    return None if value is None else int(value)


def is_indexed(job: Object) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def is_suspended(job: Object) -> bool:
    return bool(job["spec"].get("suspend"))


def finished_condition(job: Object) -> Object | None:
    """Complete or Failed, when it is true."""
    entries: Conditions = (job.get("status") or {}).get("conditions") or []
    for kind in ("Complete", "Failed"):
        entry = find(entries, kind)
        if entry is not None and entry["status"] == "True":
            return entry
    return None


def is_failed(pod: Object) -> bool:
    """Ended badly, or is being deleted before it ended: both count against the backoff limit once the pod is really over."""
    return phase_of(pod) == "Failed" or (is_deleting(pod) and phase_of(pod) != "Succeeded")


def verdict(job: Object, pods: Sequence[Object], succeeded: int, failed: int, now: float) -> Verdict | None:
    """`succeeded` and `failed` are the counters, pods that just ended included."""
    spec = job["spec"]
    restarts = sum(_restarts(pod) for pod in pods if is_active(pod)) if _restarts_in_place(job) else 0
    if failed + restarts > spec.get("backoffLimit", 6):
        return Verdict("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    left = deadline_left(job, now)
    if left is not None and left <= 0:
        return Verdict("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    wanted = completions(job)
    active = sum(is_active(pod) for pod in pods)
    done = succeeded >= wanted if wanted is not None else succeeded > 0 and not active
    if done:
        return Verdict("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def deadline_left(job: Object, now: float) -> float | None:
    limit = job["spec"].get("activeDeadlineSeconds")
    started = parse_time((job.get("status") or {}).get("startTime"))
    return None if limit is None or started is None or is_suspended(job) else started + limit - now


def wanted_active(job: Object, active: int, succeeded: int) -> int:
    """How many pods should be running now."""
    if is_suspended(job):
        return 0
    wanted = completions(job)
    if wanted is None:
        return active if succeeded else parallelism(job)
    return min(parallelism(job), max(0, wanted - succeeded))


def free_indexes(job: Object, pods: Sequence[Object], succeeded: set[int], count: int) -> list[int]:
    """The lowest indexes that are neither done nor at work."""
    busy = {index_of(pod) for pod in pods if is_active(pod) or is_deleting(pod)}
    total = completions(job) or 0
    return [index for index in range(total) if index not in succeeded and index not in busy][:count]


def backoff_left(pods: Sequence[Object], failed: int, now: float) -> float:
    """Seconds to wait before the next pod after failures: 10 s, doubling up to 10 minutes, from the end of the last one."""
    if not failed:
        return 0.0
    ends = [end for pod in pods if phase_of(pod) == "Failed" and (end := ended_at(pod)) is not None]
    if not ends:
        return 0.0
    return max(0.0, max(ends) + min(BACKOFF_BASE_S * 2.0 ** min(failed - 1, 10), BACKOFF_MAX_S) - now)


def ended_at(pod: Object) -> float | None:
    """When its last container ended."""
    moments = []
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        terminated = (status.get("state") or {}).get("terminated") or {}
        moment = parse_time(terminated.get("finishedAt"))
        if moment is not None:
            moments.append(moment)
    fallback = parse_time(pod["metadata"].get("deletionTimestamp")) or parse_time(pod["metadata"].get("creationTimestamp"))
    return max(moments, default=fallback)


def _restarts_in_place(job: Object) -> bool:
    return bool(job["spec"]["template"]["spec"].get("restartPolicy") == "OnFailure")


def _restarts(pod: Object) -> int:
    status = pod.get("status") or {}
    statuses = (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))
    return sum(each.get("restartCount", 0) for each in statuses)
