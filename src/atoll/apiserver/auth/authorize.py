"""The authorisers in their order: the masters' group, the roles, and for nodes what their pods need. One that allows is enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.auth.nodes import NodeAuthorizer
from atoll.apiserver.auth.rbac import RoleBased
from atoll.apiserver.auth.rules import Attributes, Rule, refusal
from atoll.apiserver.call import User
from atoll.apiserver.core import Core
from atoll.client.signers import NODES_GROUP


class Authorizer:
    def __init__(self, core: Core) -> None:
        self._roles = RoleBased(core)
        self._nodes = NodeAuthorizer(core)

    def allows(self, user: User, wanted: Attributes) -> bool:
        if user.is_master or self._roles.allows(user, wanted):
            return True
        return NODES_GROUP in user.groups and self._nodes.refusal(user, wanted) is None

    def refusal(self, user: User, wanted: Attributes) -> str:
        """Upstream's words for what was not allowed, with the reason where an authoriser gives one."""
        why = self._nodes.refusal(user, wanted) if NODES_GROUP in user.groups else ""
        return refusal(user, wanted) + (f": {why}" if why else "")

    def reason(self, user: User, wanted: Attributes) -> str:
        """Why the answer is as it is: the binding that allows, or what the node authoriser has to say."""
        if user.is_master:
            return ""
        found = self._roles.reason(user, wanted)
        if found or NODES_GROUP not in user.groups:
            return found
        return self._nodes.refusal(user, wanted) or ""

    def rules_of(self, user: User) -> list[tuple[str, Rule]]:
        """Each rule bound to the user with the namespace it holds in; "" is everywhere. A node's own rights are not among them."""
        return self._roles.rules_of(user)

    def rules_in_role(self, reference: Mapping[str, Any], namespace: str) -> list[Rule]:
        """The rules a roleRef leads to; none when there is no such role."""
        return self._roles.rules_in_role(reference, namespace)
