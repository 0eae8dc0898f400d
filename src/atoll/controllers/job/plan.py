"""When a job is over, and how many pods it should have until then. Pure.

The counters in the status are exact because a pod keeps the finalizer `batch.kubernetes.io/job-tracking` until it was counted: nothing
can delete it unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from atoll.client.objects import Object, is_deleting
from atoll.controllers.conditions import Conditions, find
from atoll.controllers.job.indexes import index_of
from atoll.controllers.job.policies import success_rule
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


@dataclass(frozen=True, slots=True)
class Tally:
    """The counters, pods that just ended included; of an indexed job the indexes that are done, and those given up. `fatal` is what a
    failure policy says of a pod for which the whole job fails.
    """

    succeeded: int
    failed: int
    done: frozenset[int] = frozenset()
    given_up: frozenset[int] = frozenset()
    fatal: str = ""


def verdict(job: Object, pods: Sequence[Object], tally: Tally, now: float) -> Verdict | None:
    return _announced(job) or _failure(job, pods, tally, now) or _success(job, pods, tally)


def _announced(job: Object) -> Verdict | None:
    """What has been told already stands, though its pods have been counted since."""
    entries: Conditions = (job.get("status") or {}).get("conditions") or []
    for interim, kind in (("FailureTarget", "Failed"), ("SuccessCriteriaMet", "Complete")):
        entry = find(entries, interim)
        if entry is not None and entry["status"] == "True":
            return Verdict(kind, entry.get("reason", ""), entry.get("message", ""))
    return None


def _failure(job: Object, pods: Sequence[Object], tally: Tally, now: float) -> Verdict | None:
    spec = job["spec"]
    if tally.fatal:
        return Verdict("Failed", "PodFailurePolicy", tally.fatal)
    restarts = sum(_restarts(pod) for pod in pods if is_active(pod)) if _restarts_in_place(job) else 0
    if tally.failed + restarts > spec.get("backoffLimit", 6):
        return Verdict("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    left = deadline_left(job, now)
    if left is not None and left <= 0:
        return Verdict("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    if not tally.given_up:
        return None
    most = spec.get("maxFailedIndexes")
    if most is not None and len(tally.given_up) > most:
        return Verdict("Failed", "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes")
    if len(tally.given_up) + len(tally.done) >= (completions(job) or 0):
        return Verdict("Failed", "FailedIndexes", "Job has failed indexes")
    return None


def _success(job: Object, pods: Sequence[Object], tally: Tally) -> Verdict | None:
    rule = success_rule(job, set(tally.done))
    if rule is not None:
        return Verdict("Complete", "SuccessPolicy", f"Matched rules at index {rule}")
    wanted = completions(job)
    active = sum(is_active(pod) for pod in pods)
    done = tally.succeeded >= wanted if wanted is not None else tally.succeeded > 0 and not active
    if done:
        return Verdict("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def deadline_left(job: Object, now: float) -> float | None:
    limit = job["spec"].get("activeDeadlineSeconds")
    started = parse_time((job.get("status") or {}).get("startTime"))
    return None if limit is None or started is None or is_suspended(job) else started + limit - now


def wanted_active(job: Object, active: int, ended: int) -> int:
    """How many pods should be running now; `ended` are successes, and indexes that are given up."""
    if is_suspended(job):
        return 0
    wanted = completions(job)
    if wanted is None:
        return active if ended else parallelism(job)
    return min(parallelism(job), max(0, wanted - ended))


def free_indexes(job: Object, pods: Sequence[Object], ended: set[int], count: int) -> list[int]:
    """The lowest indexes that are neither ended nor at work."""
    busy = {index_of(pod) for pod in pods if is_active(pod) or is_deleting(pod)}
    total = completions(job) or 0
    return list(islice((index for index in range(total) if index not in ended and index not in busy), count))


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
