"""MutatingAdmissionPolicy: expressions that say what an object is to become, as an apply configuration or as a JSON patch.

An apply configuration is merged as server-side apply merges, without taking ownership of a field. Policies come before webhooks, by name;
one that asks for it (`reinvocationPolicy: IfNeeded`) is heard again when another has changed the object after it.
"""

from __future__ import annotations

from typing import Any

import orjson

from atoll.apiserver.admission.matching import MaybeObject
from atoll.apiserver.admission.policies.bindings import MUTATING, Bound, bound_policies, parameters
from atoll.apiserver.admission.policies.compiled import Programs
from atoll.apiserver.admission.policies.values import Values, values_of
from atoll.apiserver.admission.replace import replace_object
from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.customresources.cel import CelError, Expression
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.apply import apply_configuration
from atoll.apiserver.machinery.items import Object
from atoll.apiserver.machinery.patch_json import apply_json_patch
from atoll.errors import InvalidInput, StatusError

_MANAGER = "mutating-admission-policy"


def mutate_by_policies(core: Core, programs: Programs, call: Call, new: Object, old: MaybeObject, *, again: bool = False) -> bool:
    """Whether `new` has been changed. `again` asks only those that want to be heard a second time. Raises StatusError."""
    changed = False
    heard: list[Bound] = []
    for bound in bound_policies(core, MUTATING, call, new, old):
        if again and bound.spec.get("reinvocationPolicy") != "IfNeeded":
            continue
        made = _mutate(core, programs, bound, call, new, old)
        if made and not again:
            for before in heard:
                if before.spec.get("reinvocationPolicy") == "IfNeeded":
                    _mutate(core, programs, before, call, new, old)
        heard.append(bound)
        changed = changed or made
    return changed


def _mutate(core: Core, programs: Programs, bound: Bound, call: Call, new: Object, old: MaybeObject) -> bool:
    changed = False
    try:
        compiled = programs.policy(bound.policy)
        for params in parameters(core, bound, call):
            values = {**values_of(core, programs, call, new, old), "params": params}
            if not compiled.matches(values):
                continue
            for rule, program in compiled.rules:
                patched = _patched(call, new, rule.get("patchType"), program, values)
                if replace_object(call, new, patched):
                    changed = True
                    values["object"] = new
    except (InvalidInput, StatusError) as error:
        if bound.fails_open:
            return changed
        policy, binding = bound.names
        why = f"policy '{policy}' with binding '{binding}' denied request: {error}"
        refusal = statuses.forbidden(call.kind, call.name, why)
        refusal.code, refusal.reason = 422, "Invalid"
        raise refusal from None
    return changed


def _patched(call: Call, new: Object, kind: Any, program: Expression, values: Values) -> Any:
    """Raises CelError for what is no patch, StatusError for one that cannot be applied."""
    made = program.evaluate(values)
    fresh: Object = orjson.loads(orjson.dumps(new))
    if kind == "JSONPatch":
        if not isinstance(made, list):
            raise CelError("a JSON patch is a list of JSONPatch objects")
        return apply_json_patch(fresh, [_operation(step) for step in made])
    if not isinstance(made, dict):
        raise CelError("an apply configuration is an Object")
    if set(made.get("metadata") or {}) & {"name", "generateName", "namespace"}:
        raise CelError("an apply configuration may not change metadata.name, metadata.generateName or metadata.namespace")
    configuration = {**made, "kind": call.kind.kind, "apiVersion": call.kind.api_version}
    configuration["metadata"] = {"name": fresh["metadata"].get("name") or "", **(made.get("metadata") or {})}
    merged = apply_configuration(call.kind, fresh, _plain(configuration), _MANAGER, "", "1970-01-01T00:00:00Z", force=True)
    merged["metadata"].pop("managedFields", None)
    return merged


def _operation(step: Any) -> Any:
    return {key: value for key, value in _plain(step).items() if value is not None or key == "value"} if isinstance(step, dict) else step


def _plain(value: Any) -> Any:
    """What CEL has made, as JSON has it."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, bool | str | int | float) or value is None:
        return value
    raise CelError(f"a value of type {type(value).__name__} cannot stand in an object")
