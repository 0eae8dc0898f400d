"""Cluster roles with an aggregationRule get the rules of all roles their selectors find: so `admin`, `edit` and `view` grow.

Rules that others write into such a role are overwritten, as upstream does.
"""

from __future__ import annotations

from atoll.client.objects import Object, key_of, labels_of, name_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import CLUSTER_ROLES
from atoll.client.selectors import matches
from atoll.controllers.base import Context, Controller
from atoll.errors import StatusError


def aggregated(role: Object, others: list[Object]) -> list[Object]:
    """The rules the role should have: each once, by the names of the roles they come from."""
    selectors = role["aggregationRule"].get("clusterRoleSelectors") or ()
    rules: list[Object] = []
    for other in sorted(others, key=name_of):
        if name_of(other) == name_of(role) or not any(matches(selector, labels_of(other)) for selector in selectors):
            continue
        rules += [rule for rule in other.get("rules") or () if rule not in rules]
    return rules


class ClusterRoleAggregation(Controller):
    name = "clusterrole-aggregation-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._roles = self.informer(CLUSTER_ROLES, handler=self._role_changed)

    async def reconcile(self, key: str) -> None:
        role = self._roles.get(key)
        if role is None or role.get("aggregationRule") is None:
            return
        rules = aggregated(role, list(self._roles.list()))
        if rules == (role.get("rules") or []):
            return
        try:
            await self.client.update(CLUSTER_ROLES, {**role, "rules": rules})
        except StatusError as error:
            if not is_not_found(error):
                raise

    def _role_changed(self, old: Object | None, new: Object | None) -> None:
        """A role may be part of any that aggregate: each looks again."""
        if old is not None and new is not None and (old.get("rules"), labels_of(old)) == (new.get("rules"), labels_of(new)):
            return
        for role in self._roles.list():
            if role.get("aggregationRule") is not None:
                self.queue.add(key_of(role))
