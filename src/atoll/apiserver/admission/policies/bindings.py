"""Where a policy holds: its bindings, what they match, and the parameters each of them names.

A policy without parameters is evaluated once for each binding that matches, one with parameters once for each parameter object found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from atoll.apiserver.admission.matching import MaybeObject, is_constrained
from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.customresources.cel import CelError
from atoll.apiserver.machinery.items import Item
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.selectors import label_selector_of

GROUP = "admissionregistration.k8s.io"
VALIDATING, MUTATING = "validatingadmissionpolicies", "mutatingadmissionpolicies"
_EXEMPT = (
    VALIDATING,
    MUTATING,
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicybindings",
)
Params = Mapping[str, Any] | None


class Bound(NamedTuple):
    """A policy under one of its bindings."""

    policy: Item
    binding: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, str]:
        return self.policy.obj["metadata"]["name"], self.binding["metadata"]["name"]

    @property
    def spec(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.policy.obj.get("spec") or {}
        return found

    @property
    def fails_open(self) -> bool:
        return self.spec.get("failurePolicy") == "Ignore"


def bound_policies(core: Core, plural: str, call: Call, new: MaybeObject, old: MaybeObject) -> Iterator[Bound]:
    """The policies that concern the request, in the order of their names, under each binding that does. None judges the policies."""
    kind = core.registry.get(GROUP, "v1", plural)
    if kind is None or not len(core.cacher(kind)) or (call.kind.group == GROUP and call.kind.plural in _EXEMPT):
        return
    bindings: dict[str, list[Mapping[str, Any]]] = {}
    binding_kind = core.registry.get(GROUP, "v1", f"{plural.removesuffix('ies')}ybindings")
    if binding_kind is not None:
        for item in core.cacher(binding_kind).in_order():
            bindings.setdefault((item.obj.get("spec") or {}).get("policyName") or "", []).append(item.obj)
    for policy in core.cacher(kind).in_order():
        bound = bindings.get(policy.obj["metadata"]["name"])
        if not bound or not is_constrained(core, (policy.obj.get("spec") or {}).get("matchConstraints") or {}, call, new, old):
            continue
        for binding in bound:
            if is_constrained(core, (binding.get("spec") or {}).get("matchResources"), call, new, old):
                yield Bound(policy, binding)


def parameters(core: Core, bound: Bound, call: Call) -> list[Params]:
    """What `params` is in turn: one null where the policy takes none. Raises CelError where the binding's cannot be had."""
    wanted = bound.spec.get("paramKind")
    reference = (bound.binding.get("spec") or {}).get("paramRef")
    if not wanted or not reference:
        return [None]
    kind = core.registry.by_api_version(wanted.get("apiVersion") or "", wanted.get("kind") or "")
    if kind is None:
        told = f"{wanted.get('apiVersion')}, Kind={wanted.get('kind')}"
        raise CelError(f"failed to configure policy: failed to find resource referenced by paramKind: '{told}'")
    namespace = _namespace(kind, reference, call)
    found: list[Params] = list(_found(core, kind, reference, namespace))
    if found:
        return found
    if reference.get("parameterNotFoundAction") == "Allow":
        return []
    raise CelError("no params found for policy binding with `Deny` parameterNotFoundAction")


def _namespace(kind: Kind, reference: Mapping[str, Any], call: Call) -> str | None:
    named = reference.get("namespace")
    if not kind.namespaced:
        if named:
            raise CelError("failed to configure binding: paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        return None
    namespace = named or call.namespace
    if not namespace:
        raise CelError("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
    return str(namespace)


def _found(core: Core, kind: Kind, reference: Mapping[str, Any], namespace: str | None) -> Iterator[Mapping[str, Any]]:
    cacher = core.cacher(kind)
    if reference.get("name"):
        item = cacher.get(f"{namespace}/{reference['name']}" if namespace else reference["name"])
        if item is not None:
            yield item.obj
        return
    wanted = label_selector_of(reference.get("selector") or {})
    for item in cacher.in_order(namespace):
        labels = item.obj["metadata"].get("labels") or {}
        if all(requirement.matches(labels) for requirement in wanted):
            yield item.obj
