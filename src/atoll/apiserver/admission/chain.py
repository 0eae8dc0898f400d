"""The plug-ins in their order: first all that change the object, then all that only look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from atoll.apiserver.admission.certificates import GROUP as CERTIFICATES
from atoll.apiserver.admission.certificates import check_certificate_request, set_requestor
from atoll.apiserver.admission.defaultstorageclass import set_default_storage_class
from atoll.apiserver.admission.escalation import refuse_escalation
from atoll.apiserver.admission.limitranger import check_limits, set_default_limits
from atoll.apiserver.admission.namespacelifecycle import check_namespace_lives, keep_system_namespaces
from atoll.apiserver.admission.noderestriction import restrict_node
from atoll.apiserver.admission.podpriority import resolve_priority
from atoll.apiserver.admission.podsecurity.plugin import check_pod_security
from atoll.apiserver.admission.resourcequota import charge_quotas
from atoll.apiserver.admission.serviceaccount import give_service_account
from atoll.apiserver.admission.tolerations import add_default_tolerations
from atoll.apiserver.admission.unserved import refuse_unserved
from atoll.apiserver.admission.webhooks import check_served, mutate_by_webhooks, validate_by_webhooks
from atoll.apiserver.auth.authorize import Authorizer
from atoll.apiserver.auth.rbac import GROUP as RBAC
from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery.cacher import Object

MaybeObject = Mapping[str, Any] | None


class Mutator(Protocol):
    def __call__(self, core: Core, call: Call, new: Object, /) -> None: ...


# By resource ("pods", "persistentvolumeclaims"); all of these act on create only.
_ON_CREATE: dict[tuple[str, str], tuple[Mutator, ...]] = {
    ("", "pods"): (set_default_limits, give_service_account, add_default_tolerations, resolve_priority),
    ("", "persistentvolumeclaims"): (set_default_storage_class,),
    (CERTIFICATES, "certificatesigningrequests"): (set_requestor,),
}
_LIMITED = {("", "pods"): "resize", ("", "persistentvolumeclaims"): ""}  # at create, and by changes through this subresource


class AdmissionChain:
    def __init__(self) -> None:
        self._core: Core | None = None
        self._authorizer: Authorizer | None = None

    def attach(self, core: Core, authorizer: Authorizer) -> None:
        """The plug-ins look at other objects; the core that holds them holds this chain too."""
        self._core = core
        self._authorizer = authorizer

    async def mutate(self, call: Call, new: Object, old: MaybeObject) -> None:
        if self._core is None:
            return
        restrict_node(self._core, call, new, old)
        is_new = old is None and not call.subresource
        if old is None:
            refuse_unserved(call)
        if is_new:
            check_namespace_lives(self._core, call)
            self._complete(self._core, call, new)
        if await mutate_by_webhooks(self._core, call, new, old) and is_new:
            self._complete(self._core, call, new)  # what a webhook has added is completed too

    def _complete(self, core: Core, call: Call, new: Object) -> None:
        for plugin in _ON_CREATE.get((call.kind.group, call.kind.plural), ()):
            plugin(core, call, new)

    async def validate(self, call: Call, new: MaybeObject, old: MaybeObject) -> None:
        if new is None:
            keep_system_namespaces(call)
            if self._core is not None:
                restrict_node(self._core, call, None, old)
                await mutate_by_webhooks(self._core, call, None, old)
                await validate_by_webhooks(self._core, call, None, old)
            return
        if call.kind.group == RBAC and self._authorizer is not None:
            refuse_escalation(self._authorizer, call, new, old)
        if call.kind.group == CERTIFICATES and call.kind.plural == "certificatesigningrequests" and self._authorizer is not None:
            check_certificate_request(self._authorizer, call, new, old)
        if self._core is None:
            return
        limited = _LIMITED.get((call.kind.group, call.kind.plural))
        if limited is not None and (not call.subresource if old is None else call.subresource == limited):
            check_limits(self._core, call, new)
        check_pod_security(self._core, call, new, old)
        check_served(call, new)
        await validate_by_webhooks(self._core, call, new, old)
        await charge_quotas(self._core, call, new, old)  # last: what is refused costs nothing
