"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook: which webhooks a request concerns, and in what order they are asked.

Mutating ones are asked one after the other, by the names of their configurations; one that wants to (`reinvocationPolicy: IfNeeded`) is
asked a second time when another has changed the object after it. Validating ones are asked all at once. The configurations themselves are
shown to no webhook, or one could lock everybody out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from atoll.apiserver.admission.hookcall import MaybeObject, Verdict, ask, failed
from atoll.apiserver.admission.matching import is_named, is_selected, operation_of
from atoll.apiserver.admission.policies.compiled import Programs, conditions_hold
from atoll.apiserver.admission.policies.values import values_of
from atoll.apiserver.admission.replace import replace_object
from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.customresources.cel import CelError
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.machinery.patch_json import apply_json_patch
from atoll.errors import AtollError

log = logging.getLogger(__name__)

GROUP = "admissionregistration.k8s.io"
MUTATING, VALIDATING = "mutatingwebhookconfigurations", "validatingwebhookconfigurations"
Hook = Mapping[str, Any]


class Request(NamedTuple):
    """What is to be judged. `programs` gives the compiled match conditions; it is asked only where a webhook has some."""

    core: Core
    call: Call
    operation: str
    old: MaybeObject
    programs: Callable[[], Programs]


async def mutate_by_webhooks(request: Request, new: Object | None, *, again: bool = False) -> bool:
    """Whether `new` has been changed. `again` asks only those that want to be asked a second time.

    Raises StatusError: a webhook's refusal, or 500 when one that must be asked could not be.
    """
    hooks = list(_concerned(request, MUTATING))
    last_change = -1
    asked: list[tuple[int, Hook]] = []
    for number, (item, hook) in enumerate(hooks):
        if again and hook.get("reinvocationPolicy") != "IfNeeded":
            continue
        if _wants(request, item, hook, new):
            asked.append((number, hook))
            if await _mutate(request, hook, new):
                last_change = number
    for number, hook in asked:
        if number < last_change and not again and hook.get("reinvocationPolicy") == "IfNeeded":
            await _mutate(request, hook, new)
    return last_change >= 0


async def validate_by_webhooks(request: Request, new: MaybeObject) -> None:
    """Raises StatusError, the first of them in the order of the webhooks."""
    hooks = [hook for item, hook in _concerned(request, VALIDATING) if _wants(request, item, hook, new)]
    if not hooks:
        return
    verdicts = await asyncio.gather(*(_ask(request, hook, new) for hook in hooks), return_exceptions=True)
    for verdict in verdicts:
        if isinstance(verdict, BaseException):
            raise verdict
        _note(request.call, verdict)
        if verdict.refusal is not None:
            raise verdict.refusal


async def _mutate(request: Request, hook: Hook, new: Object | None) -> bool:
    verdict = await _ask(request, hook, new)
    _note(request.call, verdict)
    if verdict.refusal is not None:
        raise verdict.refusal
    if not verdict.patch or new is None:
        return False
    try:
        patched = apply_json_patch(orjson.loads(orjson.dumps(new)), verdict.patch)
    except AtollError as error:
        raise failed(hook, error) from None
    try:
        return replace_object(request.call, new, patched)
    except AtollError as error:
        raise statuses.internal(f'admission webhook "{hook["name"]}" left {error}') from None


def _note(call: Call, verdict: Verdict) -> None:
    call.warnings.extend(verdict.warnings)
    for key, value in verdict.annotations.items():
        call.annotate(key, value)


async def _ask(request: Request, hook: Hook, new: MaybeObject) -> Verdict:
    """Raises StatusError 500 unless the webhook's failures are to be ignored."""
    try:
        return await ask(request.core, hook, request.call, request.operation, new, request.old)
    except (AtollError, OSError) as error:
        why = error if isinstance(error, AtollError) else AtollError(str(error))
        if hook.get("failurePolicy") == "Ignore":
            log.warning("failed calling webhook %s, failing open: %s", hook["name"], error)
            return Verdict(None, [])
        raise failed(hook, why) from None


def _concerned(request: Request, plural: str) -> Iterator[tuple[Item, Hook]]:
    """The webhooks whose rules name the request."""
    core, call = request.core, request.call
    kind = core.registry.get(GROUP, "v1", plural)
    if kind is None or not len(core.cacher(kind)) or (call.kind.group == GROUP and call.kind.plural in (MUTATING, VALIDATING)):
        return
    for item in core.cacher(kind).in_order():
        for hook in item.obj.get("webhooks") or ():
            if is_named(hook.get("rules"), call, request.operation, match_policy=hook.get("matchPolicy") or "Equivalent"):
                yield item, hook


def _wants(request: Request, item: Item, hook: Hook, new: MaybeObject) -> bool:
    """By its selectors and match conditions. Raises StatusError 403 for conditions that fail where the webhook must be asked."""
    if not is_selected(request.core, hook, request.call, new, request.old):
        return False
    if not hook.get("matchConditions"):
        return True
    try:
        programs = request.programs()
        values = values_of(request.core, programs, request.call, new, request.old)
        values["request"]["operation"] = request.operation
        return conditions_hold(programs.conditions(item, hook), values)
    except CelError as error:
        if hook.get("failurePolicy") == "Ignore":
            log.warning("match conditions of webhook %s, failing open: %s", hook["name"], error)
            return False
        why = f'failed evaluating matchConditions of webhook "{hook["name"]}": {error}'
        raise statuses.forbidden(request.call.kind, request.call.name, why) from None


def request_of(core: Core, call: Call, new: MaybeObject, old: MaybeObject, programs: Callable[[], Programs]) -> Request:
    return Request(core, call, operation_of(call, new, old), old, programs)
