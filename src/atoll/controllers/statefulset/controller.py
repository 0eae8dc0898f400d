"""The stateful set controller's watches and writes."""

from __future__ import annotations

from atoll.client.factory import BY_NAMESPACE, BY_ORPHAN, BY_OWNER
from atoll.client.objects import (
    Object,
    controller_of,
    copy_of,
    is_deleting,
    key_of,
    labels_of,
    make_key,
    name_of,
    namespace_of,
    owners_of,
    uid_of,
)
from atoll.client.protocol import is_already_exists, is_not_found
from atoll.client.resources import CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from atoll.client.selectors import matches
from atoll.controllers.base import Context, Controller
from atoll.controllers.history import HASH_LABEL, History, template_of
from atoll.controllers.ownership import Claims
from atoll.controllers.pods import available_in
from atoll.controllers.replicaset import is_namespace_terminating
from atoll.controllers.statefulset import plan as planning
from atoll.controllers.statefulset.identity import claim_name, claim_templates, make_claims, make_pod, ordinal_of
from atoll.errors import AtollError, StatusError


class StatefulSetController(Controller):
    name = "statefulset-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._sets = self.informer(STATEFUL_SETS, BY_NAMESPACE, handler=self.enqueue)
        self._pods = self.informer(PODS, BY_OWNER, BY_ORPHAN, handler=self._pod_changed)
        self._claims = self.informer(PERSISTENT_VOLUME_CLAIMS)
        revisions = self.informer(CONTROLLER_REVISIONS, BY_OWNER, handler=self._revision_changed)
        self._history = History(context.client, STATEFUL_SETS, revisions)

    async def reconcile(self, key: str) -> None:
        stateful_set = self._sets.get(key)
        if stateful_set is None or is_deleting(stateful_set):
            return
        update = await self._history.current(stateful_set, (stateful_set.get("status") or {}).get("collisionCount"))
        current = self._current_revision(stateful_set, update)
        pods = await self._own_pods(stateful_set)
        by_ordinal = planning.by_ordinal(stateful_set, pods)
        now = self.clock()
        plan = planning.plan(stateful_set, by_ordinal, name_of(update), now)
        old = {ordinal for ordinal in plan.create if planning.needs_old_revision(stateful_set, by_ordinal, ordinal, name_of(current))}
        failure = await self._perform(stateful_set, plan, {ordinal: current if ordinal in old else update for ordinal in plan.create})
        await self._keep_claims(stateful_set, pods)
        status = planning.count(stateful_set, pods, name_of(current), name_of(update), now)
        if status != (stateful_set.get("status") or {}):
            await self.client.update(STATEFUL_SETS, {**stateful_set, "status": status}, subresource="status")
        await self._history.trim(stateful_set, {name_of(update), name_of(current), *(labels_of(pod).get(HASH_LABEL, "") for pod in pods)})
        waits = [available_in(pod, stateful_set["spec"].get("minReadySeconds", 0), now) for pod in pods]
        if pending := [wait for wait in waits if wait]:
            self.queue.add_after(key, min(pending))
        if failure is not None:
            raise failure

    def _current_revision(self, stateful_set: Object, update: Object) -> Object:
        wanted = (stateful_set.get("status") or {}).get("currentRevision")
        return next((each for each in self._history.of(stateful_set) if name_of(each) == wanted), update)

    async def _own_pods(self, stateful_set: Object) -> list[Object]:
        candidates = self._pods.by_index(BY_OWNER, uid_of(stateful_set)) + self._pods.by_index(BY_ORPHAN, namespace_of(stateful_set) or "")
        claims = Claims(self.client, stateful_set, STATEFUL_SETS, PODS)

        def is_match(pod: Object) -> bool:
            return matches(stateful_set["spec"].get("selector"), labels_of(pod)) and ordinal_of(stateful_set, pod) is not None

        return await claims.claim(candidates, is_match)

    async def _perform(self, stateful_set: Object, plan: planning.Plan, revisions: dict[int, Object]) -> AtollError | None:
        for pod in plan.delete:
            if pod in plan.recreate:
                message = f"StatefulSet {key_of(stateful_set)} is recreating terminated Pod {name_of(pod)}"
                self.recorder.event(stateful_set, STATEFUL_SETS, "Normal", "RecreatingTerminatedPod", message)
            await self._delete(stateful_set, pod)
        for ordinal in plan.create:
            try:
                await self._create(stateful_set, ordinal, revisions[ordinal])
            except AtollError as error:
                return None if is_namespace_terminating(error) else error
        return None

    async def _create(self, stateful_set: Object, ordinal: int, revision: Object) -> None:
        namespace = namespace_of(stateful_set)
        for claim in make_claims(stateful_set, ordinal):
            if self._claims.get(make_key(namespace, name_of(claim))) is None:
                await self._create_claim(stateful_set, claim)
        pod = make_pod(stateful_set, template_of(revision), name_of(revision), ordinal)
        what = f"create Pod {name_of(pod)} in StatefulSet {name_of(stateful_set)}"
        try:
            await self.client.create(PODS, pod, namespace)
        except StatusError as error:
            if is_already_exists(error):
                return  # the informer has not told us yet, or it is a stranger's: the next look decides
            if not is_namespace_terminating(error):
                self.recorder.event(stateful_set, STATEFUL_SETS, "Warning", "FailedCreate", f"{what} failed error: {error}")
            raise
        self.recorder.event(stateful_set, STATEFUL_SETS, "Normal", "SuccessfulCreate", f"{what} successful")

    async def _create_claim(self, stateful_set: Object, claim: Object) -> None:
        what = f"create Claim {name_of(claim)} for StatefulSet {name_of(stateful_set)}"
        try:
            await self.client.create(PERSISTENT_VOLUME_CLAIMS, claim, namespace_of(stateful_set))
        except StatusError as error:
            if is_already_exists(error):
                return
            if not is_namespace_terminating(error):
                self.recorder.event(stateful_set, STATEFUL_SETS, "Warning", "FailedCreate", f"{what} failed error: {error}")
            raise
        self.recorder.event(stateful_set, STATEFUL_SETS, "Normal", "SuccessfulCreate", f"{what} successful")

    async def _delete(self, stateful_set: Object, pod: Object) -> None:
        try:
            await self.client.delete(PODS, name_of(pod), namespace_of(pod), uid=uid_of(pod))
        except StatusError as error:
            if not is_not_found(error):
                raise
            return
        message = f"delete Pod {name_of(pod)} in StatefulSet {name_of(stateful_set)} successful"
        self.recorder.event(stateful_set, STATEFUL_SETS, "Normal", "SuccessfulDelete", message)

    async def _keep_claims(self, stateful_set: Object, pods: list[Object]) -> None:
        """persistentVolumeClaimRetentionPolicy: claims that are to go with the set, or with a pod that was scaled away, are owned by it."""
        policy = stateful_set["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
        with_set, with_pod = policy.get("whenDeleted") == "Delete", policy.get("whenScaled") == "Delete"
        if not (with_set or with_pod):
            return
        for pod in pods:
            ordinal = ordinal_of(stateful_set, pod)
            assert ordinal is not None
            condemned = ordinal not in planning.ordinals(stateful_set)
            owners = []
            if with_pod and condemned:
                owners.append({"apiVersion": "v1", "kind": "Pod", "name": name_of(pod), "uid": uid_of(pod)})
            elif with_set:
                api_version, kind = STATEFUL_SETS.api_version, STATEFUL_SETS.kind
                owners.append({"apiVersion": api_version, "kind": kind, "name": name_of(stateful_set), "uid": uid_of(stateful_set)})
            for template in claim_templates(stateful_set):
                await self._own_claim(make_key(namespace_of(pod), claim_name(stateful_set, template, ordinal)), owners)

    async def _own_claim(self, key: str, owners: list[Object]) -> None:
        claim = self._claims.get(key)
        if claim is None or is_deleting(claim):
            return
        foreign = [each for each in owners_of(claim) if each["kind"] not in ("Pod", "StatefulSet")]
        if [each["uid"] for each in owners_of(claim)] == [each["uid"] for each in (*foreign, *owners)]:
            return
        changed = copy_of(claim)
        changed["metadata"]["ownerReferences"] = [*foreign, *owners]
        await self.client.update(PERSISTENT_VOLUME_CLAIMS, changed)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        assert pod is not None
        if self.enqueue_controller("StatefulSet", pod) is None and controller_of(pod) is None and new is not None:
            for stateful_set in self._sets.by_index(BY_NAMESPACE, namespace_of(pod) or ""):
                if matches(stateful_set["spec"].get("selector"), labels_of(pod)):
                    self.queue.add(key_of(stateful_set))

    def _revision_changed(self, old: Object | None, new: Object | None) -> None:
        revision = new or old
        assert revision is not None
        self.enqueue_controller("StatefulSet", revision)
