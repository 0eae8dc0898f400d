"""The programs of policies and of webhooks' match conditions, compiled once for each revision of the object that holds them.

What does not compile was refused when it was written, or is a policy from before the server knew better: then each request that it concerns
meets its failure policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atoll.apiserver.admission.policies.language import Language, Values
from atoll.apiserver.auth.authorize import Authorizer
from atoll.apiserver.customresources.cel import CelError, Expression
from atoll.apiserver.machinery.items import Item

COMPILED_MAX = 2_000  # policies and configurations kept; far more than any cluster has


@dataclass(slots=True)
class Compiled:
    """`rules` are, in order, what `spec.validations` or `spec.mutations` says and its program."""

    variables: dict[str, str]
    conditions: list[tuple[str, Expression]]
    rules: list[tuple[Mapping[str, Any], Expression]] = field(default_factory=list)
    messages: list[Expression | None] = field(default_factory=list)
    annotations: list[tuple[str, Expression]] = field(default_factory=list)

    def matches(self, values: Values) -> bool:
        """Whether all conditions hold. Raises CelError when none is false and one could not be evaluated."""
        return conditions_hold(self.conditions, values)


class Programs:
    """The language and what has been compiled in it. Made at the first policy, so that a server without any pays nothing."""

    def __init__(self, authorizer: Authorizer) -> None:
        self.language = Language(authorizer)
        self._compiled: dict[tuple[str, str, int], Compiled | CelError] = {}
        self._conditions: dict[tuple[str, int, str], list[tuple[str, Expression]] | CelError] = {}

    def policy(self, item: Item) -> Compiled:
        """Raises CelError."""
        key = (item.obj["kind"], item.key, item.revision)
        found = self._compiled.get(key)
        if found is None:
            if len(self._compiled) >= COMPILED_MAX:
                self._compiled.clear()
            try:
                found = self._compile(item.obj.get("spec") or {})
            except CelError as error:
                found = error
            self._compiled[key] = found
        if isinstance(found, CelError):
            raise found
        return found

    def conditions(self, item: Item, hook: Mapping[str, Any]) -> list[tuple[str, Expression]]:
        """Of a webhook. Raises CelError."""
        key = (item.obj["kind"] + item.key, item.revision, hook["name"])
        found = self._conditions.get(key)
        if found is None:
            if len(self._conditions) >= COMPILED_MAX:
                self._conditions.clear()
            try:
                found = compile_conditions(self.language, hook.get("matchConditions"), {})
            except CelError as error:
                found = error
            self._conditions[key] = found
        if isinstance(found, CelError):
            raise found
        return found

    def _compile(self, spec: Mapping[str, Any]) -> Compiled:
        language = self.language
        variables = {variable["name"]: variable["expression"] for variable in spec.get("variables") or ()}
        made = Compiled(variables, compile_conditions(language, spec.get("matchConditions"), {}))
        for rule in spec.get("validations") or ():
            made.rules.append((rule, language.program(rule["expression"], variables, ("BOOL",))))
            message = rule.get("messageExpression")
            made.messages.append(language.program(message, variables, ("STRING",)) if message else None)
        for rule in spec.get("mutations") or ():
            made.rules.append((rule, language.program(mutation_text(rule), variables)))
        for note in spec.get("auditAnnotations") or ():
            made.annotations.append((note["key"], language.program(note["valueExpression"], variables, ("STRING", "NULL"))))
        return made


def mutation_text(rule: Mapping[str, Any]) -> str:
    part = rule.get("jsonPatch") if rule.get("patchType") == "JSONPatch" else rule.get("applyConfiguration")
    return str((part or {}).get("expression") or "")


def compile_conditions(language: Language, conditions: Any, variables: Mapping[str, str]) -> list[tuple[str, Expression]]:
    """Raises CelError."""
    return [(one["name"], language.program(one["expression"], variables, ("BOOL",))) for one in conditions or ()]


def conditions_hold(conditions: list[tuple[str, Expression]], values: Values) -> bool:
    """One that is false decides, whatever the others' errors. Raises CelError."""
    failed: CelError | None = None
    for name, program in conditions:
        try:
            if program.evaluate(values) is not True:
                return False
        except CelError as error:
            failed = failed or CelError(f"{name}: {error}")
    if failed is not None:
        raise failed
    return True
