"""The pod's status, written to the API where it differs from what was written last."""

from __future__ import annotations

import logging
import time

from atoll.client.objects import Object, key_of
from atoll.client.protocol import is_conflict, is_not_found
from atoll.client.resources import PODS
from atoll.errors import StatusError, Unavailable
from atoll.node.directories import PodDirectory
from atoll.node.pods.live import LivePod
from atoll.node.pods.messages import termination_message
from atoll.node.pods.model import Actual, State
from atoll.node.pods.status import OWNED, Facts, pod_status

ENDED = ("Succeeded", "Failed")

log = logging.getLogger(__name__)


class StatusTeller:
    def __init__(self, live: LivePod) -> None:
        self._live = live
        self._around = live.around
        self._messages: dict[str, str] = {}
        self._told: Object | None = None

    @property
    def phase(self) -> str:
        """As the API has it, from us or from another."""
        status = self._live.pod.get("status") or {}
        return str(status.get("phase") if self._told is None or status.get("phase") in ENDED else self._told["phase"])

    async def tell(self, actual: Actual, *, is_ending: bool = False) -> bool:
        """False where the API must be tried again. A pod that has gone, or given way to another of its name, needs no word."""
        live = self._live
        facts = Facts(
            host_ip=self._around.config.address,
            pod_ip=live.address,
            now=time.time(),
            messages=self._termination_messages(actual),
            digests=self._digests(actual),
            is_ending=is_ending,
        )
        status = pod_status(self._known(), actual, facts)
        if status == self._told:
            return True
        meta = live.pod["metadata"]
        patch = {"metadata": {"uid": live.uid}, "status": _replacing(status, live.pod.get("status") or {})}
        try:
            await self._around.client.patch(PODS, meta["name"], patch, meta["namespace"], kind="strategic", subresource="status")
        except StatusError as error:
            if is_not_found(error) or is_conflict(error):
                return True
            log.warning("status of pod %s: %s", key_of(live.pod), error)
            return False
        except Unavailable as error:
            log.info("status of pod %s is not told yet: %s", key_of(live.pod), error)
            return False
        self._told = status
        return True

    def _known(self) -> Object:
        """The pod with the status written last: the watch may not have brought it yet. Conditions of others are as the API has them."""
        pod = self._live.pod
        if self._told is None:
            return pod
        conditions = [condition for condition in self._told["conditions"] if condition["type"] in OWNED]
        return {**pod, "status": {**self._told, "conditions": conditions + foreign_conditions(pod)}}

    def _termination_messages(self, actual: Actual) -> dict[str, str]:
        kept = {}
        directory = PodDirectory.of(self._around.instance, self._live.uid)
        registry = self._around.engine.registry
        for attempts in actual.containers.values():
            for state in attempts[:2]:
                found = registry.find(state.id)
                if state.state is not State.EXITED or found is None:
                    continue
                if state.id not in self._messages:
                    path = directory.termination_log(state.name, state.attempt)
                    self._messages[state.id] = termination_message(self._live.container(state.name), state, path, found.paths.log)
                kept[state.id] = self._messages[state.id]
        self._messages = kept
        return kept

    def _digests(self, actual: Actual) -> dict[str, str]:
        found = {}
        for attempts in actual.containers.values():
            image = self._around.engine.images.find(attempts[0].image_id)
            if image is not None and image.repo_digests:
                found[attempts[0].image_id] = image.repo_digests[0]
        return found


def foreign_conditions(pod: Object) -> list[Object]:
    """Those that others write: readiness gates hang on them."""
    return [condition for condition in (pod.get("status") or {}).get("conditions") or () if condition.get("type") not in OWNED]


def _replacing(status: Object, before: Object) -> Object:
    """As a strategic patch: lists that would be merged by address are replaced."""
    patch = dict(status)
    for name in ("podIPs", "hostIPs"):
        if status.get(name) and before.get(name) != status[name]:
            patch[name] = [*status[name], {"$patch": "replace"}]
    return patch
