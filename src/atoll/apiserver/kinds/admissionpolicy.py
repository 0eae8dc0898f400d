"""Admission policies and their bindings: what they match by default, and that their expressions compile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.admission.policies.compiled import mutation_text
from atoll.apiserver.admission.policies.language import Language
from atoll.apiserver.customresources.cel import CelError
from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

_REASONS = ("Unauthorized", "Forbidden", "Invalid", "RequestEntityTooLarge")
_ACTIONS = ("Audit", "Deny", "Warn")
CONDITIONS_MAX = 64  # of one policy or webhook, as upstream
Variables = dict[str, str]


def default_matching(match: Object, *rule_fields: str) -> None:
    match.setdefault("matchPolicy", "Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for field in rule_fields:
        for rule in match.get(field) or ():
            rule.setdefault("scope", "*")


def check_conditions(conditions: Any, path: str, causes: Causes, language: Language | None = None) -> None:
    """matchConditions, of policies and of webhooks alike."""
    if not conditions:
        return
    language = language or Language()
    if len(conditions) > CONDITIONS_MAX:
        causes.too_many(path, len(conditions), CONDITIONS_MAX)
    taken: set[str] = set()
    for index, condition in enumerate(conditions):
        at, name = f"{path}[{index}]", condition.get("name") or ""
        if not name:
            causes.required(f"{at}.name")
        else:
            causes.each(f"{at}.name", name, names.qualified_name(name))
        if name in taken:
            causes.duplicate(f"{at}.name", name)
        taken.add(name)
        compiles(language, condition.get("expression"), {}, f"{at}.expression", causes, ("BOOL",))


def compiles(language: Language, text: Any, variables: Variables, path: str, causes: Causes, returns: tuple[str, ...] = ()) -> None:
    if not text or not str(text).strip():
        causes.required(path, "")
        return
    try:
        language.program(str(text), variables, returns)
    except CelError as error:
        why = str(error)
        causes.invalid(path, text, why if why.startswith("must evaluate") else f"compilation failed: {why}")


class PolicyRules(Rules):
    counts_generations = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("failurePolicy", "Fail")
        if "matchConstraints" in spec:
            default_matching(spec["matchConstraints"], "resourceRules", "excludeResourceRules")

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        language = Language()
        causes.one_of("spec.failurePolicy", spec.get("failurePolicy"), ("Fail", "Ignore"))
        if not spec.get("matchConstraints"):
            causes.required("spec.matchConstraints")
        elif not spec["matchConstraints"].get("resourceRules"):
            causes.required("spec.matchConstraints.resourceRules")
        check_conditions(spec.get("matchConditions"), "spec.matchConditions", causes, language)
        variables: Variables = {}
        for index, variable in enumerate(spec.get("variables") or ()):
            at, name = f"spec.variables[{index}]", variable.get("name") or ""
            if not name.isidentifier():
                causes.invalid(f"{at}.name", name, "name is not a valid CEL identifier")
            if name in variables:
                causes.duplicate(f"{at}.name", name)
            compiles(language, variable.get("expression"), variables, f"{at}.expression", causes)
            variables[name] = variable.get("expression") or "null"
        if not causes:
            self.check_rules(language, spec, variables, causes)

    def check_rules(self, language: Language, spec: Mapping[str, Any], variables: Variables, causes: Causes) -> None:
        raise NotImplementedError


class ValidatingPolicyRules(PolicyRules):
    def check_rules(self, language: Language, spec: Mapping[str, Any], variables: Variables, causes: Causes) -> None:
        if not spec.get("validations") and not spec.get("auditAnnotations"):
            causes.required("spec.validations", "validations or auditAnnotations must be non-empty")
            causes.required("spec.auditAnnotations", "validations or auditAnnotations must be non-empty")
        for index, rule in enumerate(spec.get("validations") or ()):
            at = f"spec.validations[{index}]"
            compiles(language, rule.get("expression"), variables, f"{at}.expression", causes, ("BOOL",))
            message = rule.get("message") or ""
            if message and not message.strip():
                causes.invalid(f"{at}.message", message, "message must be non-empty if specified")
            if "\n" in message.strip():
                causes.invalid(f"{at}.message", message, "message must not contain line breaks")
            elif "\n" in (rule.get("expression") or "").strip() and not message and not rule.get("messageExpression"):
                causes.required(f"{at}.message", "message must be specified if expression contains line breaks")
            if rule.get("messageExpression"):
                compiles(language, rule["messageExpression"], variables, f"{at}.messageExpression", causes, ("STRING",))
            if rule.get("reason") and rule["reason"] not in _REASONS:
                causes.unsupported(f"{at}.reason", rule["reason"], _REASONS)
        taken: set[str] = set()
        for index, note in enumerate(spec.get("auditAnnotations") or ()):
            at, key = f"spec.auditAnnotations[{index}]", note.get("key") or ""
            causes.each(f"{at}.key", key, names.qualified_name(key))
            if key in taken:
                causes.duplicate(f"{at}.key", key)
            taken.add(key)
            compiles(language, note.get("valueExpression"), variables, f"{at}.valueExpression", causes, ("STRING", "NULL"))


class MutatingPolicyRules(PolicyRules):
    def default(self, obj: Object) -> None:
        super().default(obj)
        obj["spec"].setdefault("reinvocationPolicy", "Never")

    def check_rules(self, language: Language, spec: Mapping[str, Any], variables: Variables, causes: Causes) -> None:
        causes.one_of("spec.reinvocationPolicy", spec.get("reinvocationPolicy"), ("Never", "IfNeeded"))
        if not spec.get("mutations"):
            causes.required("spec.mutations", "mutations must contain at least one item")
        for index, rule in enumerate(spec.get("mutations") or ()):
            at, kind = f"spec.mutations[{index}]", rule.get("patchType")
            causes.one_of(f"{at}.patchType", kind, ("ApplyConfiguration", "JSONPatch"))
            field = "jsonPatch" if kind == "JSONPatch" else "applyConfiguration"
            returns = ("LIST",) if kind == "JSONPatch" else ("MAP",)
            if not rule.get(field):
                causes.required(f"{at}.{field}")
                continue
            self._check_mutation(language, mutation_text(rule), variables, f"{at}.{field}.expression", causes, returns[0])

    def _check_mutation(self, language: Language, text: str, variables: Variables, path: str, causes: Causes, returns: str) -> None:
        try:
            found = language.program(text, variables).returns
        except CelError as error:
            causes.invalid(path, text, f"compilation failed: {error}")
            return
        if found != "DYN" and not found.startswith(returns):
            causes.invalid(path, text, "must evaluate to []JSONPatch" if returns == "LIST" else "must evaluate to Object")


class BindingRules(Rules):
    counts_generations = True
    validating = False

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        if "matchResources" in spec:
            default_matching(spec["matchResources"], "resourceRules", "excludeResourceRules")

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        if not spec.get("policyName"):
            causes.required("spec.policyName")
        else:
            causes.each("spec.policyName", spec["policyName"], names.subdomain(spec["policyName"]))
        reference = spec.get("paramRef")
        if reference is not None:
            if bool(reference.get("name")) == (reference.get("selector") is not None):
                causes.required("spec.paramRef", "one of name or selector must be specified")
            causes.one_of("spec.paramRef.parameterNotFoundAction", reference.get("parameterNotFoundAction"), ("Deny", "Allow"))
        if self.validating:
            self._check_actions(spec.get("validationActions") or [], causes)

    def _check_actions(self, actions: list[str], causes: Causes) -> None:
        path = "spec.validationActions"
        if not actions:
            causes.required(path, "at least one validation action is required")
        for index, action in enumerate(actions):
            if action not in _ACTIONS:
                causes.unsupported(f"{path}[{index}]", action, _ACTIONS)
            elif action in actions[:index]:
                causes.duplicate(f"{path}[{index}]", action)
        if {"Deny", "Warn"} <= set(actions):
            why = (
                "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers "
                "serves no purpose)"
            )
            causes.invalid(path, actions, why)


class ValidatingBindingRules(BindingRules):
    validating = True


VALIDATING, MUTATING = ValidatingPolicyRules(), MutatingPolicyRules()
VALIDATING_BINDING, MUTATING_BINDING = ValidatingBindingRules(), BindingRules()
