"""The job controller: runs pods until enough of them have succeeded, or too many failed.

Each pod that ended is counted in two writes: its uid goes into status.uncountedTerminatedPods, its finalizer is taken off, and only
then does it move into the counter. Whatever is interrupted in between is finished by the next look, and no pod counts twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from atoll.client.factory import BY_NAMESPACE, BY_ORPHAN, BY_OWNER
from atoll.client.objects import Object, controller_of, copy_of, is_deleting, key_of, labels_of, make_key, name_of, namespace_of, uid_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import JOBS, PODS
from atoll.client.selectors import matches
from atoll.controllers import conditions
from atoll.controllers.base import Context, Controller
from atoll.controllers.conditions import condition
from atoll.controllers.expectations import Expectations
from atoll.controllers.job import indexes, plan, policies
from atoll.controllers.job.plan import FINALIZER, Verdict
from atoll.controllers.ownership import Claims
from atoll.controllers.pods import BURST, is_active, is_finished, is_ready, phase_of, pod_from_template
from atoll.controllers.replicaset import is_namespace_terminating, slow_start
from atoll.errors import AtollError, StatusError
from atoll.units import timestamp_seconds


@dataclass(slots=True)
class Count:
    """Counters so far and the pods that are to be added to them."""

    succeeded: int
    failed: int
    done_indexes: set[int]
    given_up: set[int]
    new_succeeded: list[Object]
    new_failed: list[Object]
    new_ignored: list[Object]
    fatal: str

    @property
    def all_done(self) -> set[int]:
        return self.done_indexes | {index for pod in self.new_succeeded if (index := indexes.index_of(pod)) is not None}

    @property
    def tally(self) -> plan.Tally:
        return plan.Tally(self.all_succeeded, self.all_failed, frozenset(self.all_done), frozenset(self.given_up), self.fatal)

    @property
    def all_succeeded(self) -> int:
        return self.succeeded + len(self.new_succeeded)

    @property
    def all_failed(self) -> int:
        return self.failed + len(self.new_failed)


class JobController(Controller):
    name = "job-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._expectations = Expectations(context.clock)
        self._released: set[str] = set()  # uids of pods whose finalizer we took off, until the informer shows it
        self._jobs = self.informer(JOBS, BY_NAMESPACE, handler=self.enqueue)
        self._pods = self.informer(PODS, BY_OWNER, BY_ORPHAN, handler=self._pod_changed)

    async def reconcile(self, key: str) -> None:
        job = self._jobs.get(key)
        if job is None:
            self._expectations.forget(key)
            await self._release_leftovers(key)
            return
        counted = set(self._released)  # before the pods are looked up: they may still show a finalizer that is off
        pods = await self._own_pods(job)
        if plan.finished_condition(job) is not None:
            await self._clean_up(pods)
            return
        counted |= _uncounted(job)
        job = await self._settle_uncounted(job, pods)
        count = self._count(job, [pod for pod in pods if uid_of(pod) not in counted], pods)
        verdict = None if is_deleting(job) else plan.verdict(job, pods, count.tally, self.clock())
        await self._remove_finalizers(count.new_ignored)
        failure: AtollError | None = None
        if verdict is not None:
            await self._delete_pods(key, job, [pod for pod in pods if is_active(pod)])
        elif not is_deleting(job) and self._expectations.satisfied(key):
            failure = await self._manage(key, job, pods, count)
        await self._write_status(key, job, pods, count, verdict)
        if failure is not None:
            raise failure

    async def _own_pods(self, job: Object) -> list[Object]:
        candidates = self._pods.by_index(BY_OWNER, uid_of(job)) + self._pods.by_index(BY_ORPHAN, namespace_of(job) or "")
        claims = Claims(self.client, job, JOBS, PODS)
        return await claims.claim(candidates, lambda pod: matches(job["spec"].get("selector"), labels_of(pod)))

    # Counting

    def _count(self, job: Object, pods: list[Object], all_pods: list[Object]) -> Count:
        status = job.get("status") or {}
        done = indexes.parse(status.get("completedIndexes"), plan.completions(job) or 0)
        fresh = [pod for pod in pods if _is_tracked(pod) and not is_active(pod)]
        succeeded = [pod for pod in fresh if phase_of(pod) == "Succeeded"]
        if plan.is_indexed(job):
            by_index = {index: pod for pod in succeeded if (index := indexes.index_of(pod)) is not None and index not in done}
            succeeded = list(by_index.values())
        # A pod that is being deleted has failed only when its containers are over; until then its kubelet may still report success.
        failed = [pod for pod in fresh if plan.is_failed(pod) and (is_finished(pod) or not pod["spec"].get("nodeName"))]
        decisions = [(pod, policies.decide(job, pod)) for pod in failed]
        ignored = [pod for pod, decision in decisions if decision.action == "Ignore"]
        counted = [pod for pod, decision in decisions if decision.action != "Ignore"]
        fatal = next((decision.message for _, decision in decisions if decision.action == "FailJob"), "")
        given_up = policies.failed_indexes(job, all_pods)
        return Count(status.get("succeeded", 0), status.get("failed", 0), done, given_up, succeeded, counted, ignored, fatal)

    async def _settle_uncounted(self, job: Object, pods: list[Object]) -> Object:
        """Finishes what an earlier look began: pods already noted as uncounted lose their finalizer and move into the counters."""
        status = job.get("status") or {}
        uncounted = status.get("uncountedTerminatedPods") or {}
        noted = _uncounted(job)
        if not noted:
            return job
        await self._remove_finalizers([pod for pod in pods if uid_of(pod) in noted])
        new = dict(status) | {"uncountedTerminatedPods": {}}
        if uncounted.get("succeeded") and not plan.is_indexed(job):
            new["succeeded"] = status.get("succeeded", 0) + len(uncounted["succeeded"])
        if uncounted.get("failed"):
            new["failed"] = status.get("failed", 0) + len(uncounted["failed"])
        return await self.client.update(JOBS, {**job, "status": new}, subresource="status")

    async def _remove_finalizers(self, pods: list[Object]) -> None:
        for pod in pods:
            latest = self._pods.get(key_of(pod)) or pod
            if not _is_tracked(latest) or uid_of(latest) != uid_of(pod) or uid_of(pod) in self._released:
                continue
            left = [each for each in latest["metadata"]["finalizers"] if each != FINALIZER]
            meta = {"uid": uid_of(pod), "resourceVersion": latest["metadata"]["resourceVersion"], "finalizers": left or None}
            try:
                await self.client.patch(PODS, name_of(pod), {"metadata": meta}, namespace_of(pod))
            except StatusError as error:
                if not is_not_found(error):
                    raise
            else:
                self._released.add(uid_of(pod))

    # Pods

    async def _manage(self, key: str, job: Object, pods: list[Object], count: Count) -> AtollError | None:
        active = [pod for pod in pods if is_active(pod)]
        target = plan.wanted_active(job, len(active), count.all_succeeded + len(count.given_up))
        if len(active) > target:
            surplus = sorted(active, key=lambda pod: (is_ready(pod), pod["metadata"].get("creationTimestamp", "")))
            await self._delete_pods(key, job, surplus[: len(active) - target])
            return None
        # A pod that is still ending holds its place, unless it failed already.
        ending = sum(is_deleting(pod) and not is_finished(pod) for pod in pods)
        missing = target - len(active) - ending
        if missing <= 0:
            return None
        # With a limit for each index, each waits for itself alone.
        wait = plan.backoff_left(pods, count.all_failed, self.clock()) if policies.limit_per_index(job) is None else 0.0
        if wait > 0:
            self.queue.add_after(key, wait)
            return None
        makers = self._makers(key, job, pods, count, min(missing, BURST))
        return await self._create_pods(key, job, makers) if makers else None

    def _makers(self, key: str, job: Object, pods: list[Object], count: Count, missing: int) -> list[Callable[[], Object]]:
        if not plan.is_indexed(job):
            return [lambda: _make_pod(job, None, 0)] * missing
        ended = count.all_done | count.given_up
        if policies.limit_per_index(job) is None:
            free = plan.free_indexes(job, pods, ended, missing)
            return [lambda index=index: _make_pod(job, index, 0) for index in free]  # type: ignore[misc]
        failures, now = policies.failures(job, pods), self.clock()
        waits = {
            index: plan.backoff_left([pod for pod in pods if indexes.index_of(pod) == index], failures[index], now) for index in failures
        }
        waiting = {index: wait for index, wait in waits.items() if wait > 0 and index not in ended}
        if waiting:
            self.queue.add_after(key, min(waiting.values()))
        free = plan.free_indexes(job, pods, ended | waiting.keys(), missing)
        return [lambda index=index: _make_pod(job, index, failures.get(index, 0)) for index in free]  # type: ignore[misc]

    async def _create_pods(self, key: str, job: Object, makers: list[Callable[[], Object]]) -> AtollError | None:
        self._expectations.expect(key, creations=len(makers))
        left = iter(makers)

        def create() -> Awaitable[None]:
            return self._create_pod(job, next(left)())

        created, error = await slow_start(len(makers), create)
        if error is not None:
            self._expectations.creation_observed(key, len(makers) - created)
            if is_namespace_terminating(error):
                return None
            self.recorder.event(job, JOBS, "Warning", "FailedCreate", f"Error creating: {error}")
        return error

    async def _create_pod(self, job: Object, pod: Object) -> None:
        made = await self.client.create(PODS, pod, namespace_of(job))
        self.recorder.event(job, JOBS, "Normal", "SuccessfulCreate", f"Created pod: {name_of(made)}")

    async def _delete_pods(self, key: str, job: Object, doomed: list[Object]) -> None:
        self._expectations.expect(key, deletions=[key_of(pod) for pod in doomed])

        async def delete(pod: Object) -> None:
            try:
                await self.client.delete(PODS, name_of(pod), namespace_of(pod), uid=uid_of(pod))
            except StatusError as error:
                self._expectations.deletion_observed(key, key_of(pod))
                if not is_not_found(error):
                    raise
                return
            self.recorder.event(job, JOBS, "Normal", "SuccessfulDelete", f"Deleted pod: {name_of(pod)}")

        await asyncio.gather(*(delete(pod) for pod in doomed))

    async def _clean_up(self, pods: list[Object]) -> None:
        """After the end: nothing runs on, and every finalizer is taken off."""
        for pod in pods:
            if is_active(pod):
                try:
                    await self.client.delete(PODS, name_of(pod), namespace_of(pod), uid=uid_of(pod))
                except StatusError as error:
                    if not is_not_found(error):
                        raise
        await self._remove_finalizers([pod for pod in pods if not is_active(pod)])

    async def _release_leftovers(self, key: str) -> None:
        """The job is gone; the garbage collector takes its pods, which must not hang on our finalizer."""
        namespace, _, name = key.partition("/")
        for pod in self._pods.list(namespace):
            reference = controller_of(pod)
            if reference is not None and reference["kind"] == "Job" and reference["name"] == name:
                await self._remove_finalizers([pod])

    # Status

    async def _write_status(self, key: str, job: Object, pods: list[Object], count: Count, verdict: Verdict | None) -> None:
        now = timestamp_seconds(self.clock())
        old = job.get("status") or {}
        status = copy_of(old)
        status["conditions"] = self._conditions(job, status, verdict, now)
        if not plan.is_suspended(job):
            status.setdefault("startTime", now)
        self._put_counts(job, status, pods, count)
        if verdict is None and (left := plan.deadline_left({**job, "status": status}, self.clock())) is not None:
            self.queue.add_after(key, max(left, 0) + 1)
        uncounted = status["uncountedTerminatedPods"]
        if verdict is not None and not uncounted:
            self._finish(job, status, verdict, now)
        if not status["conditions"]:
            del status["conditions"]
        if status != old:
            await self.client.update(JOBS, {**job, "status": status}, subresource="status")

    def _put_counts(self, job: Object, status: Object, pods: list[Object], count: Count) -> None:
        active = [pod for pod in pods if is_active(pod)]
        status["active"] = len(active)
        status["ready"] = sum(is_ready(pod) for pod in active)
        status["terminating"] = sum(is_deleting(pod) and not is_finished(pod) for pod in pods)
        if not active:
            del status["active"]
        uncounted = {"succeeded": [uid_of(pod) for pod in count.new_succeeded], "failed": [uid_of(pod) for pod in count.new_failed]}
        status["uncountedTerminatedPods"] = {field: uids for field, uids in uncounted.items() if uids}
        if plan.is_indexed(job):
            done = count.all_done
            status["completedIndexes"] = indexes.spell(done)
            if done:
                status["succeeded"] = len(done)
        if policies.limit_per_index(job) is not None:
            status["failedIndexes"] = indexes.spell(count.given_up)

    def _conditions(self, job: Object, status: Object, verdict: Verdict | None, now: str) -> list[Object]:
        entries = status.get("conditions") or []
        suspended = conditions.find(entries, "Suspended")
        if plan.is_suspended(job) and (suspended is None or suspended["status"] != "True"):
            self.recorder.event(job, JOBS, "Normal", "Suspended", "Job suspended")
            status.pop("startTime", None)
            entries = conditions.put(entries, condition("Suspended", "True", "JobSuspended", "Job suspended", now))
        elif not plan.is_suspended(job) and suspended is not None and suspended["status"] == "True":
            self.recorder.event(job, JOBS, "Normal", "Resumed", "Job resumed")
            status["startTime"] = now
            entries = conditions.put(entries, condition("Suspended", "False", "JobResumed", "Job resumed", now))
        if verdict is not None:
            interim = "SuccessCriteriaMet" if verdict.kind == "Complete" else "FailureTarget"
            entries = conditions.put(entries, condition(interim, "True", verdict.reason, verdict.message, now))
        return [{**each, "lastProbeTime": each.get("lastProbeTime", now)} for each in entries]

    def _finish(self, job: Object, status: Object, verdict: Verdict, now: str) -> None:
        """Only once every pod has been counted and none is left running: what is Complete or Failed does not change any more."""
        if status.get("active") or status.get("terminating"):
            return
        entry = condition(verdict.kind, "True", verdict.reason, verdict.message, now)
        status["conditions"] = conditions.put(status["conditions"], {**entry, "lastProbeTime": now})
        if verdict.kind == "Complete":
            status["completionTime"] = now
            self.recorder.event(job, JOBS, "Normal", "Completed", "Job completed")
        else:
            self.recorder.event(job, JOBS, "Warning", verdict.reason, verdict.message)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        assert pod is not None
        if new is None or not _is_tracked(new):
            self._released.discard(uid_of(pod))
        reference = controller_of(pod)
        if reference is None:
            for job in self._jobs.by_index(BY_NAMESPACE, namespace_of(pod) or ""):
                if new is not None and matches(job["spec"].get("selector"), labels_of(pod)):
                    self.queue.add(key_of(job))
            return
        if reference.get("kind") != "Job":
            return
        key = make_key(namespace_of(pod), reference["name"])
        if new is None or is_deleting(new):
            self._expectations.deletion_observed(key, key_of(pod))
        elif old is None:
            self._expectations.creation_observed(key)
        self.queue.add(key)


def _uncounted(job: Object) -> set[str]:
    """Uids that the status notes as ended but has not added to its counters."""
    noted = (job.get("status") or {}).get("uncountedTerminatedPods") or {}
    return {*(noted.get("succeeded") or ()), *(noted.get("failed") or ())}


def _is_tracked(pod: Object) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


def _make_pod(job: Object, index: int | None, failures: int) -> Object:
    pod = pod_from_template(job["spec"]["template"], job, JOBS)
    meta = pod["metadata"]
    meta["finalizers"] = [*(meta.get("finalizers") or ()), FINALIZER]
    if index is None:
        return pod
    meta["generateName"] = f"{name_of(job)}-{index}-"
    meta.setdefault("annotations", {})[indexes.INDEX] = str(index)
    meta.setdefault("labels", {})[indexes.INDEX] = str(index)
    if policies.limit_per_index(job) is not None:
        meta["annotations"][policies.FAILURE_COUNT] = str(failures)
    spec = pod["spec"]
    spec.setdefault("hostname", f"{name_of(job)}-{index}")
    source = {"fieldRef": {"fieldPath": f"metadata.annotations['{indexes.INDEX}']"}}
    for container in (*spec["containers"], *(spec.get("initContainers") or ())):
        container["env"] = [*(container.get("env") or ()), {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}]
    return pod
