"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook: which webhooks a request concerns, and in what order they are asked.

Mutating ones are asked one after the other, by the names of their configurations; one that wants to (`reinvocationPolicy: IfNeeded`) is
asked a second time when another has changed the object after it. Validating ones are asked all at once. The configurations themselves are
shown to no webhook, or one could lock everybody out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from atoll.apiserver.admission.hookcall import MaybeObject, Verdict, ask, failed
from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.cacher import Object
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.patch_json import apply_json_patch
from atoll.apiserver.machinery.selectors import label_selector_of
from atoll.errors import AtollError

log = logging.getLogger(__name__)

GROUP = "admissionregistration.k8s.io"
MUTATING, VALIDATING = "mutatingwebhookconfigurations", "validatingwebhookconfigurations"
_KEPT = ("name", "generateName", "namespace", "uid", "creationTimestamp", "resourceVersion", "managedFields")  # not a webhook's to change
Hook = Mapping[str, Any]


def check_served(call: Call, new: Mapping[str, Any]) -> None:
    """Raises StatusError 501 for a configuration that asks for what is not done here."""
    if call.kind.group != GROUP or call.kind.plural not in (MUTATING, VALIDATING):
        return
    for hook in new.get("webhooks") or ():
        if hook.get("matchConditions"):
            raise statuses.not_supported(f"webhook {hook.get('name')}: matchConditions are not evaluated by this server: use selectors")
        if any("CONNECT" in (rule.get("operations") or ()) for rule in hook.get("rules") or ()):
            raise statuses.not_supported(f"webhook {hook.get('name')}: the operation CONNECT is not shown to webhooks by this server")


async def mutate_by_webhooks(core: Core, call: Call, new: Object | None, old: MaybeObject) -> bool:
    """Whether `new` has been changed. Raises StatusError: a webhook's refusal, or 500 when one that must be asked could not be."""
    hooks = list(_concerned(core, MUTATING, call, new, old))
    last_change = -1
    asked: list[tuple[int, Hook]] = []
    for number, hook in enumerate(hooks):
        if _selects(core, hook, call, new, old):
            asked.append((number, hook))
            if await _mutate(core, hook, call, new, old):
                last_change = number
    for number, hook in asked:
        if number < last_change and hook.get("reinvocationPolicy") == "IfNeeded":
            await _mutate(core, hook, call, new, old)
    return last_change >= 0


async def validate_by_webhooks(core: Core, call: Call, new: MaybeObject, old: MaybeObject) -> None:
    """Raises StatusError, the first of them in the order of the webhooks."""
    hooks = [hook for hook in _concerned(core, VALIDATING, call, new, old) if _selects(core, hook, call, new, old)]
    if not hooks:
        return
    verdicts = await asyncio.gather(*(_ask(core, hook, call, new, old) for hook in hooks), return_exceptions=True)
    for verdict in verdicts:
        if isinstance(verdict, BaseException):
            raise verdict
        call.warnings.extend(verdict.warnings)
        if verdict.refusal is not None:
            raise verdict.refusal


async def _mutate(core: Core, hook: Hook, call: Call, new: Object | None, old: MaybeObject) -> bool:
    verdict = await _ask(core, hook, call, new, old)
    call.warnings.extend(verdict.warnings)
    if verdict.refusal is not None:
        raise verdict.refusal
    if not verdict.patch or new is None:
        return False
    try:
        patched = apply_json_patch(orjson.loads(orjson.dumps(new)), verdict.patch)
    except AtollError as error:
        raise failed(hook, error) from None
    outcome = call.kind.schema.validate(patched) if isinstance(patched, dict) else None
    if outcome is None or outcome.error:
        raise statuses.internal(
            f'admission webhook "{hook["name"]}" left no valid object: {outcome.error if outcome else "it is no object"}'
        )
    changed = dict(outcome.object)
    kept = {name: new["metadata"][name] for name in _KEPT if name in new["metadata"]}
    changed["metadata"] = {**{name: value for name, value in (changed.get("metadata") or {}).items() if name not in _KEPT}, **kept}
    if changed == new:
        return False
    new.clear()
    new.update(changed)
    return True


async def _ask(core: Core, hook: Hook, call: Call, new: MaybeObject, old: MaybeObject) -> Verdict:
    """Raises StatusError 500 unless the webhook's failures are to be ignored."""
    try:
        return await ask(core, hook, call, _operation(new, old), new, old)
    except (AtollError, OSError) as error:
        why = error if isinstance(error, AtollError) else AtollError(str(error))
        if hook.get("failurePolicy") == "Ignore":
            log.warning("failed calling webhook %s, failing open: %s", hook["name"], error)
            return Verdict(None, [])
        raise failed(hook, why) from None


def _operation(new: MaybeObject, old: MaybeObject) -> str:
    return "DELETE" if new is None else "UPDATE" if old is not None else "CREATE"


def _concerned(core: Core, plural: str, call: Call, new: MaybeObject, old: MaybeObject) -> Iterator[Hook]:
    """The webhooks whose rules name the request."""
    kind = core.registry.get(GROUP, "v1", plural)
    if kind is None or not len(core.cacher(kind)) or (call.kind.group == GROUP and call.kind.plural in (MUTATING, VALIDATING)):
        return
    operation = _operation(new, old)
    for item in core.cacher(kind).in_order():
        for hook in item.obj.get("webhooks") or ():
            if any(_names(rule, call, operation) for rule in hook.get("rules") or ()):
                yield hook


def _names(rule: Mapping[str, Any], call: Call, operation: str) -> bool:
    if not {operation, "*"} & set(rule.get("operations") or ()):
        return False
    if rule.get("scope", "*") != "*" and (rule["scope"] == "Namespaced") is not call.kind.namespaced:
        return False
    return any(_names_kind(rule, kind, call.subresource) for kind in (call.kind, call.face))


def _names_kind(rule: Mapping[str, Any], kind: Kind, subresource: str) -> bool:
    if not {kind.group, "*"} & set(rule.get("apiGroups") or ()) or not {kind.version, "*"} & set(rule.get("apiVersions") or ()):
        return False
    whole = {kind.plural, "*", "*/*"}
    part = {f"{kind.plural}/{subresource}", f"{kind.plural}/*", f"*/{subresource}", "*/*"}
    return bool((part if subresource else whole) & set(rule.get("resources") or ()))


def _selects(core: Core, hook: Hook, call: Call, new: MaybeObject, old: MaybeObject) -> bool:
    by_object = label_selector_of(hook.get("objectSelector") or {})
    if by_object:
        told = [(obj["metadata"].get("labels") or {}) for obj in (new, old) if obj is not None]
        if not any(all(requirement.matches(labels) for requirement in by_object) for labels in told):
            return False
    by_namespace = label_selector_of(hook.get("namespaceSelector") or {})
    if not by_namespace:
        return True
    if call.kind.plural == "namespaces" and not call.kind.group:
        namespace = new if new is not None else old
    elif call.namespace:
        item = core.find("", "v1", "namespaces", call.namespace)
        namespace = item.obj if item else {"metadata": {}}
    else:
        return True
    labels = ((namespace or {}).get("metadata") or {}).get("labels") or {}
    return all(requirement.matches(labels) for requirement in by_namespace)
