"""What a job says of failures and success beyond counting: podFailurePolicy, backoffLimitPerIndex and successPolicy. Pure.

Rules of a failure policy are tried in order, and the first that a failed pod matches says what becomes of it (KEP-3329). With a limit for
each index (KEP-3850) a pod carries how often its index has failed before, so that nothing but the pods need be asked. A success policy
(KEP-3998) names the indexes that are enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from atoll.client.objects import Object, annotations_of, name_of, namespace_of
from atoll.controllers.job import indexes
from atoll.controllers.pods import is_active, phase_of

FAILURE_COUNT = "batch.kubernetes.io/job-index-failure-count"  # annotation of a pod


class Decision(NamedTuple):
    """FailJob, FailIndex, Ignore or Count; `message` tells which rule matched what."""

    action: str
    message: str


def decide(job: Object, pod: Object) -> Decision:
    """What becomes of a job for this failed pod of its."""
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or ()):
        told = _by_exit_code(rule, pod) if rule.get("onExitCodes") else _by_condition(rule, pod)
        if told:
            return Decision(rule["action"], f"{told} matching {rule['action']} rule at index {number}")
    return Decision("Count", "")


def _by_exit_code(rule: Object, pod: Object) -> str:
    wanted = rule["onExitCodes"]
    for name, code in _exit_codes(pod):
        if wanted.get("containerName") not in (None, name) or not code:
            continue
        if (code in wanted["values"]) == (wanted["operator"] == "In"):
            return f"Container {name} for pod {namespace_of(pod)}/{name_of(pod)} failed with exit code {code}"
    return ""


def _exit_codes(pod: Object) -> Iterator[tuple[str, int]]:
    status = pod.get("status") or {}
    for each in (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())):
        ended = (each.get("state") or {}).get("terminated")
        if ended is not None:
            yield each["name"], ended.get("exitCode", 0)


def _by_condition(rule: Object, pod: Object) -> str:
    present = {(each["type"], each["status"]) for each in (pod.get("status") or {}).get("conditions") or ()}
    for wanted in rule.get("onPodConditions") or ():
        if (wanted["type"], wanted.get("status", "True")) in present:
            return f"Pod {namespace_of(pod)}/{name_of(pod)} has condition {wanted['type']}"
    return ""


def limit_per_index(job: Object) -> int | None:
    """None where the job's failures count together."""
    value = job["spec"].get("backoffLimitPerIndex")
    return None if value is None else int(value)


def failures(job: Object, pods: Iterable[Object]) -> dict[int, int]:
    """Index → how often it has failed, as far as it did."""
    counted: dict[int, int] = {}
    for pod in pods:
        index = indexes.index_of(pod)
        if index is None:
            continue
        before = int(annotations_of(pod).get(FAILURE_COUNT, "0"))
        failed = phase_of(pod) == "Failed" and decide(job, pod).action != "Ignore"
        if before or failed:
            counted[index] = max(counted.get(index, 0), before + failed)
    return counted


def failed_indexes(job: Object, pods: Sequence[Object]) -> set[int]:
    """Those that will not be tried again: noted in the status, over their limit, or failed by a FailIndex rule."""
    limit = limit_per_index(job)
    if limit is None:
        return set()
    noted = indexes.parse((job.get("status") or {}).get("failedIndexes"), job["spec"].get("completions") or 0)
    over = {index for index, count in failures(job, pods).items() if count > limit}
    ended = [pod for pod in pods if phase_of(pod) == "Failed" and decide(job, pod).action == "FailIndex"]
    busy = {indexes.index_of(pod) for pod in pods if is_active(pod)}
    return noted | ({index for pod in ended if (index := indexes.index_of(pod)) is not None} | over) - busy


def success_rule(job: Object, done: set[int]) -> int | None:
    """The first rule of the success policy that the finished indexes meet."""
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or ()):
        named = rule.get("succeededIndexes")
        wanted = indexes.ranges(named)
        counting = indexes.within(wanted, done) if named else len(done)
        count = rule.get("succeededCount")
        if counting >= (count if count is not None else sum(map(len, wanted))):
            return number
    return None
