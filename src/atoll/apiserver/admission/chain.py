"""The plug-ins in their order: first all that change the object, then all that only look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from atoll.apiserver.admission.certificates import GROUP as CERTIFICATES
from atoll.apiserver.admission.certificates import check_certificate_request, set_requestor
from atoll.apiserver.admission.defaultclass import set_default_ingress_class, set_default_storage_class
from atoll.apiserver.admission.escalation import refuse_escalation
from atoll.apiserver.admission.limitranger import check_limits, set_default_limits
from atoll.apiserver.admission.namespacelifecycle import check_namespace_lives, keep_system_namespaces
from atoll.apiserver.admission.noderestriction import restrict_node
from atoll.apiserver.admission.nodetaint import taint_new_node
from atoll.apiserver.admission.podpriority import check_one_default, resolve_priority
from atoll.apiserver.admission.podsecurity.plugin import check_pod_security
from atoll.apiserver.admission.policies.bindings import GROUP as HOOKS
from atoll.apiserver.admission.policies.bindings import MUTATING as MUTATING_POLICIES
from atoll.apiserver.admission.policies.bindings import VALIDATING as VALIDATING_POLICIES
from atoll.apiserver.admission.policies.compiled import Programs
from atoll.apiserver.admission.policies.mutating import mutate_by_policies
from atoll.apiserver.admission.policies.validating import validate_by_policies
from atoll.apiserver.admission.resourcequota import charge_quotas
from atoll.apiserver.admission.runtimeclass import apply_runtime_class
from atoll.apiserver.admission.serviceaccount import give_service_account
from atoll.apiserver.admission.storage import check_resize, protect_storage
from atoll.apiserver.admission.tolerations import add_default_tolerations
from atoll.apiserver.admission.webhooks import (
    MUTATING,
    VALIDATING,
    Request,
    mutate_by_webhooks,
    request_of,
    validate_by_webhooks,
)
from atoll.apiserver.auth.authorize import Authorizer
from atoll.apiserver.auth.rbac import GROUP as RBAC
from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.cacher import Cacher
from atoll.apiserver.machinery.items import Object
from atoll.apiserver.parameters import REQUEST_S

MaybeObject = Mapping[str, Any] | None


class Mutator(Protocol):
    def __call__(self, core: Core, call: Call, new: Object, /) -> None: ...


# By resource ("pods", "persistentvolumeclaims"); all of these act on create only.
_ON_CREATE: dict[tuple[str, str], tuple[Mutator, ...]] = {
    ("", "pods"): (set_default_limits, give_service_account, resolve_priority, add_default_tolerations, apply_runtime_class),
    ("", "nodes"): (taint_new_node,),
    ("", "persistentvolumeclaims"): (set_default_storage_class, protect_storage),
    ("", "persistentvolumes"): (protect_storage,),
    ("networking.k8s.io", "ingresses"): (set_default_ingress_class,),
    (CERTIFICATES, "certificatesigningrequests"): (set_requestor,),
}
_LIMITED = {("", "pods"): "resize", ("", "persistentvolumeclaims"): ""}  # at create, and by changes through this subresource


class AdmissionChain:
    def __init__(self) -> None:
        self._core: Core | None = None
        self._authorizer: Authorizer | None = None
        self._programs: Programs | None = None
        self._configured: dict[str, Cacher] = {}

    def attach(self, core: Core, authorizer: Authorizer) -> None:
        """The plug-ins look at other objects; the core that holds them holds this chain too."""
        self._core = core
        self._authorizer = authorizer
        for plural in (MUTATING_POLICIES, MUTATING, VALIDATING_POLICIES, VALIDATING):
            kind = core.registry.get(HOOKS, "v1", plural)
            if kind is not None:
                self._configured[plural] = core.cacher(kind)

    def _has(self, plural: str) -> bool:
        """Whether there is any of these policies or webhook configurations; in most clusters, and on each write, there is none."""
        cacher = self._configured.get(plural)
        return cacher is not None and len(cacher) > 0

    def _compiler(self) -> Programs:
        """Made when the first policy or match condition is met."""
        if self._programs is None:
            assert self._authorizer is not None
            self._programs = Programs(self._authorizer)
        return self._programs

    async def mutate(self, call: Call, new: Object, old: MaybeObject) -> None:
        core = self._core
        if core is None:
            return
        restrict_node(core, call, new, old)
        is_new = old is None and not call.subresource
        if is_new:
            await check_namespace_lives(core, call)
            self._complete(core, call, new)
        if await self._mutate_from_outside(core, call, new, old) and is_new:
            self._complete(core, call, new)  # what a webhook has added is completed too

    async def _mutate_from_outside(self, core: Core, call: Call, new: Object, old: MaybeObject) -> bool:
        """Policies first, then webhooks; those who wish look again at what came after them."""
        by_policies = self._has(MUTATING_POLICIES) and mutate_by_policies(core, self._compiler(), call, new, old)
        if not self._has(MUTATING):
            return by_policies
        request = request_of(core, call, new, old, self._compiler)
        async with _bounded():
            return await self._mutate_by_webhooks(core, request, new, old) or by_policies

    async def _mutate_by_webhooks(self, core: Core, request: Request, new: Object, old: MaybeObject) -> bool:
        call = request.call
        if not await mutate_by_webhooks(request, new):
            return False
        if self._has(MUTATING_POLICIES) and mutate_by_policies(core, self._compiler(), call, new, old, again=True):
            await mutate_by_webhooks(request, new, again=True)
        return True

    def _complete(self, core: Core, call: Call, new: Object) -> None:
        for plugin in _ON_CREATE.get((call.kind.group, call.kind.plural), ()):
            plugin(core, call, new)

    async def connect(self, call: Call, options: Object) -> None:
        if self._core is not None:
            await self._mutate_from_outside(self._core, call, options, None)
            await self._validate_from_outside(self._core, call, options, None)

    async def validate(self, call: Call, new: MaybeObject, old: MaybeObject) -> None:
        core = self._core
        if core is None:
            return
        if new is None:
            keep_system_namespaces(call)
            restrict_node(core, call, None, old)
            if self._has(MUTATING):
                await mutate_by_webhooks(request_of(core, call, None, old, self._compiler), None)
            await self._validate_from_outside(core, call, None, old)
            return
        self._check(core, call, new, old)
        await self._validate_from_outside(core, call, new, old)
        await charge_quotas(core, call, new, old)  # last: what is refused costs nothing

    def _check(self, core: Core, call: Call, new: Mapping[str, Any], old: MaybeObject) -> None:
        group, _ = where = (call.kind.group, call.kind.plural)
        assert self._authorizer is not None
        if group == RBAC:
            refuse_escalation(self._authorizer, call, new, old)
        elif where == (CERTIFICATES, "certificatesigningrequests"):
            check_certificate_request(self._authorizer, call, new, old)
        elif where == ("", "persistentvolumeclaims"):
            check_resize(core, call, new, old)
        elif where == ("scheduling.k8s.io", "priorityclasses"):
            check_one_default(core, call, new)
        limited = _LIMITED.get(where)
        if limited is not None and (not call.subresource if old is None else call.subresource == limited):
            check_limits(core, call, new)
        check_pod_security(core, call, new, old)

    async def _validate_from_outside(self, core: Core, call: Call, new: MaybeObject, old: MaybeObject) -> None:
        if self._has(VALIDATING_POLICIES):
            validate_by_policies(core, self._compiler(), call, new, old)
        if self._has(VALIDATING):
            async with _bounded():
                await validate_by_webhooks(request_of(core, call, new, old, self._compiler), new)


@asynccontextmanager
async def _bounded() -> AsyncIterator[None]:
    """What is asked outside may take its time, each webhook its own and all of them together that of a request."""
    try:
        async with asyncio.timeout(REQUEST_S):
            yield
    except TimeoutError:
        raise statuses.timed_out() from None
