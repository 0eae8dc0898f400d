"""Cron jobs: a job at every time of a schedule. One timer each, set to the next time; nothing polls.

A job is named after its time in minutes, so that no time makes two. Times missed while the controller was away are made good by the
latest of them alone, if startingDeadlineSeconds still allows it.
"""

from __future__ import annotations

from atoll.client.factory import BY_OWNER
from atoll.client.objects import Object, copy_of, is_controlled_by, is_deleting, name_of, namespace_of, owner_reference, uid_of
from atoll.client.protocol import is_already_exists, is_not_found
from atoll.client.resources import CRON_JOBS, JOBS
from atoll.controllers.base import Context, Controller
from atoll.controllers.job.plan import finished_condition
from atoll.controllers.job.schedule import Schedule, parse
from atoll.controllers.pods import parse_time
from atoll.controllers.replicaset import is_namespace_terminating
from atoll.errors import InvalidInput, StatusError
from atoll.units import timestamp_seconds

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
MANY_MISSED = 100


def make_job(cron_job: Object, when: float) -> Object:
    template = copy_of(cron_job["spec"]["jobTemplate"])
    meta = template.get("metadata") or {}
    annotations = {**(meta.get("annotations") or {}), SCHEDULED: timestamp_seconds(when)}
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {
            "name": f"{name_of(cron_job)}-{int(when // 60)}",
            "namespace": namespace_of(cron_job),
            "labels": meta.get("labels") or {},
            "annotations": annotations,
            "ownerReferences": [owner_reference(cron_job, CRON_JOBS)],
        },
        "spec": template["spec"],
    }


def due_time(cron_job: Object, schedule: Schedule, now: float) -> tuple[float | None, int]:
    """The latest time that is due and not started yet, and how many were missed with it."""
    status = cron_job.get("status") or {}
    created = parse_time(cron_job["metadata"].get("creationTimestamp")) or now
    since = parse_time(status.get("lastScheduleTime")) or created
    deadline = cron_job["spec"].get("startingDeadlineSeconds")
    if deadline is not None:
        since = max(since, now - deadline)
    return schedule.latest(since, now)


class CronJobController(Controller):
    name = "cronjob-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._cron_jobs = self.informer(CRON_JOBS, handler=self.enqueue)
        self._jobs = self.informer(JOBS, BY_OWNER, handler=self._job_changed)

    async def reconcile(self, key: str) -> None:
        cron_job = self._cron_jobs.get(key)
        if cron_job is None:
            return
        jobs = [job for job in self._jobs.by_index(BY_OWNER, uid_of(cron_job)) if is_controlled_by(job, cron_job)]
        status = self._note_finished(cron_job, jobs)
        await self._trim(cron_job, jobs)
        if not is_deleting(cron_job) and not cron_job["spec"].get("suspend"):
            try:
                schedule = parse(cron_job["spec"]["schedule"], cron_job["spec"].get("timeZone"))
            except InvalidInput as error:
                self.recorder.event(cron_job, CRON_JOBS, "Warning", "UnparseableSchedule", f"unparseable schedule: {error}")
            else:
                await self._start_due(key, cron_job, jobs, schedule, status)
        if status != (cron_job.get("status") or {}):
            await self.client.update(CRON_JOBS, {**cron_job, "status": status}, subresource="status")

    def _note_finished(self, cron_job: Object, jobs: list[Object]) -> Object:
        """The status with `active` in step with the jobs, and the last success noted."""
        status = copy_of(cron_job.get("status") or {})
        before = {each["uid"] for each in status.get("active") or ()}
        for job in jobs:
            ended = finished_condition(job)
            if ended is None:
                continue
            if uid_of(job) in before:
                message = f"Saw completed job: {name_of(job)}, condition: {ended['type']}"
                self.recorder.event(cron_job, CRON_JOBS, "Normal", "SawCompletedJob", message)
            done = (job.get("status") or {}).get("completionTime")
            if ended["type"] == "Complete" and done and done > status.get("lastSuccessfulTime", ""):
                status["lastSuccessfulTime"] = done
        running = [job for job in jobs if finished_condition(job) is None]
        status["active"] = [_reference(job) for job in sorted(running, key=name_of)]
        if not status["active"]:
            del status["active"]
        return status

    async def _start_due(self, key: str, cron_job: Object, jobs: list[Object], schedule: Schedule, status: Object) -> None:
        now = self.clock()
        when, missed = due_time(cron_job, schedule, now)
        if missed > MANY_MISSED:
            message = (
                f"too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew: {missed - 1} or more"
            )
            self.recorder.event(cron_job, CRON_JOBS, "Warning", "TooManyMissedTimes", message)
        following = schedule.following(now)
        if following is not None:
            self.queue.add_after(key, following - now)
        if when is None:
            return
        running = [job for job in jobs if finished_condition(job) is None]
        policy = cron_job["spec"].get("concurrencyPolicy", "Allow")
        if policy == "Forbid" and running:
            message = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self.recorder.event(cron_job, CRON_JOBS, "Normal", "JobAlreadyActive", message)
            return
        if policy == "Replace":
            for job in running:
                await self._delete(cron_job, job)
            status.pop("active", None)
        await self._create(cron_job, when, status)

    async def _create(self, cron_job: Object, when: float, status: Object) -> None:
        made = make_job(cron_job, when)
        try:
            job = await self.client.create(JOBS, made, namespace_of(cron_job))
        except StatusError as error:
            if is_namespace_terminating(error):
                return
            if not is_already_exists(error):
                self.recorder.event(cron_job, CRON_JOBS, "Warning", "FailedCreate", f"Error creating job: {error}")
                raise
        else:
            self.recorder.event(cron_job, CRON_JOBS, "Normal", "SuccessfulCreate", f"Created job {name_of(job)}")
            status["active"] = [*(status.get("active") or ()), _reference(job)]
        status["lastScheduleTime"] = timestamp_seconds(when)

    async def _trim(self, cron_job: Object, jobs: list[Object]) -> None:
        spec = cron_job["spec"]
        for kind, limit in (("Complete", spec.get("successfulJobsHistoryLimit", 3)), ("Failed", spec.get("failedJobsHistoryLimit", 1))):
            ended = [job for job in jobs if (finished_condition(job) or {}).get("type") == kind and not is_deleting(job)]
            ended.sort(key=lambda job: ((job.get("status") or {}).get("startTime", ""), name_of(job)))
            for job in ended[: max(0, len(ended) - limit)]:
                await self._delete(cron_job, job)

    async def _delete(self, cron_job: Object, job: Object) -> None:
        try:
            await self.client.delete(JOBS, name_of(job), namespace_of(job), propagation="Background", uid=uid_of(job))
        except StatusError as error:
            if not is_not_found(error):
                raise
            return
        self.recorder.event(cron_job, CRON_JOBS, "Normal", "SuccessfulDelete", f"Deleted job {name_of(job)}")

    def _job_changed(self, old: Object | None, new: Object | None) -> None:
        job = new or old
        assert job is not None
        self.enqueue_controller("CronJob", job)


def _reference(job: Object) -> Object:
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "name": name_of(job),
        "namespace": namespace_of(job),
        "uid": uid_of(job),
    }
