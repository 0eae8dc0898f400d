"""Finished jobs go by themselves after spec.ttlSecondsAfterFinished, if that is set."""

from __future__ import annotations

from atoll.client.objects import Object, is_deleting, name_of, namespace_of, uid_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import JOBS
from atoll.controllers.base import Context, Controller
from atoll.controllers.job.plan import finished_condition
from atoll.controllers.pods import parse_time
from atoll.errors import StatusError


def time_left(job: Object, now: float) -> float | None:
    """Seconds until the job goes; None when it stays."""
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    ended = finished_condition(job)
    if ttl is None or ended is None:
        return None
    return (parse_time(ended.get("lastTransitionTime")) or now) + float(ttl) - now


class TtlAfterFinishedController(Controller):
    name = "ttl-after-finished-controller"
    workers = 2

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._jobs = self.informer(JOBS, handler=self.enqueue)

    async def reconcile(self, key: str) -> None:
        job = self._jobs.get(key)
        left = None if job is None or is_deleting(job) else time_left(job, self.clock())
        if job is None or left is None:
            return
        if left > 0:
            self.queue.add_after(key, left)
            return
        try:
            await self.client.delete(JOBS, name_of(job), namespace_of(job), propagation="Foreground", uid=uid_of(job))
        except StatusError as error:
            if not is_not_found(error):
                raise
