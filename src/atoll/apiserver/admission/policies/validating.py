"""ValidatingAdmissionPolicy: expressions that must hold, else the request is denied, its author warned, or a note left to audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from atoll.apiserver.admission.matching import MaybeObject
from atoll.apiserver.admission.policies.bindings import VALIDATING, Bound, Params, bound_policies, parameters
from atoll.apiserver.admission.policies.compiled import Programs
from atoll.apiserver.admission.policies.values import Values, values_of
from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.customresources.cel import CelError, Expression
from atoll.apiserver.machinery import statuses

FAILURES = "validation.policy.admission.k8s.io/validation_failure"
_MESSAGE_MAX = 5 * 1024
_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413}


@dataclass(frozen=True, slots=True)
class Failure:
    """`index` is that of the validation, None where the policy could not be evaluated at all."""

    message: str
    reason: str = "Invalid"
    index: int | None = None


def validate_by_policies(core: Core, programs: Programs, call: Call, new: MaybeObject, old: MaybeObject) -> None:
    """Raises StatusError, of the first policy that denies."""
    denied: tuple[Bound, Failure] | None = None
    notes: list[dict[str, Any]] = []
    base = None
    for bound in bound_policies(core, VALIDATING, call, new, old):
        base = base or values_of(core, programs, call, new, old)
        actions = (bound.binding.get("spec") or {}).get("validationActions") or ("Deny",)
        for failure in _failures(core, programs, bound, call, base):
            if "Deny" in actions and denied is None:
                denied = bound, failure
            if "Warn" in actions:
                policy, binding = bound.names
                told = f"Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {failure.message}"
                call.warnings.append(told)
            if "Audit" in actions:
                notes.append(_note(bound, failure, actions))
    if notes:
        call.annotate(FAILURES, orjson.dumps(notes).decode())
    if denied is not None:
        raise _refusal(call, *denied)


def _failures(core: Core, programs: Programs, bound: Bound, call: Call, base: Values) -> Iterator[Failure]:
    try:
        compiled = programs.policy(bound.policy)
        found: list[Params] = parameters(core, bound, call)
        for params in found:
            values = {**base, "params": params}
            if not compiled.matches(values):
                continue
            for index, (rule, program) in enumerate(compiled.rules):
                failure = _broken(rule, program, compiled.messages[index], values, index, fails_open=bound.fails_open)
                if failure is not None:
                    yield failure
            _annotate(call, bound, compiled.annotations, values)
    except CelError as error:
        if not bound.fails_open:
            yield Failure(str(error))


def _broken(
    rule: Mapping[str, Any], program: Expression, message: Expression | None, values: Values, index: int, *, fails_open: bool
) -> Failure | None:
    text = " ".join(rule["expression"].split())
    reason = rule.get("reason") or "Invalid"
    try:
        if program.evaluate(values) is True:
            return None
    except CelError as error:
        return None if fails_open else Failure(f"expression '{text}' resulted in error: {error}", reason, index)
    told = _made(message, values) or (rule.get("message") or "").strip() or f"failed expression: {text}"
    return Failure(told, reason, index)


def _made(message: Expression | None, values: Values) -> str:
    """What messageExpression says; nothing when it fails or is not one short line, as upstream."""
    try:
        told = message.evaluate(values) if message is not None else ""
    except CelError:
        return ""
    told = told.strip() if isinstance(told, str) else ""
    return "" if "\n" in told or len(told) > _MESSAGE_MAX else told


def _annotate(call: Call, bound: Bound, annotations: list[tuple[str, Expression]], values: Values) -> None:
    for key, program in annotations:
        try:
            told = program.evaluate(values)
        except CelError as error:
            if not bound.fails_open:
                raise CelError(f"failed to evaluate auditAnnotation {key}: {error}") from None
            continue
        if isinstance(told, str) and told.strip():
            call.annotate(f"{bound.names[0]}/{key}", told)


def _note(bound: Bound, failure: Failure, actions: Any) -> dict[str, Any]:
    policy, binding = bound.names
    told = {"message": failure.message, "policy": policy, "binding": binding, "validationActions": list(actions)}
    return told if failure.index is None else {**told, "expressionIndex": failure.index}


def _refusal(call: Call, bound: Bound, failure: Failure) -> Exception:
    policy, binding = bound.names
    why = f"ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {failure.message}"
    error = statuses.forbidden(call.kind, call.name, why)
    error.code, error.reason = _CODES.get(failure.reason, 422), failure.reason
    error.details = {**(error.details or {}), "causes": [{"message": why}]}
    return error
