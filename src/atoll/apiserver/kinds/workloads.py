"""What deployments, replica sets, stateful sets, daemon sets and replication controllers share: a selector and a pod template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.label_selectors import is_empty, selects, validate_selector
from atoll.apiserver.kinds.pod_defaults import default_pod_spec
from atoll.apiserver.kinds.pod_spec import validate_template
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

_PERCENT_WORDS = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is "
    "'[0-9]+%')"
)


def default_template(spec: Object) -> None:
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}))


class WorkloadRules(Rules):
    counts_generations = True
    kind_word: ClassVar[str] = ""
    selector_is_immutable: ClassVar[bool] = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        default_template(spec)
        self.default_spec(spec)

    def default_spec(self, spec: Object) -> None:
        """The workload's own fields."""

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        causes.non_negative("spec.replicas", spec.get("replicas"))
        causes.non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
        causes.non_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
        selector, template = spec.get("selector"), spec.get("template") or {}
        if selector is None:
            causes.required("spec.selector")
        else:
            validate_selector(selector, "spec.selector", causes)
            if is_empty(selector):
                causes.invalid("spec.selector", selector, f"empty selector is invalid for {self.kind_word}")
        labels = (template.get("metadata") or {}).get("labels") or {}
        if selector is not None and not is_empty(selector) and not selects(selector, labels):
            causes.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
        validate_template(template, "spec.template", causes, ("Always",))
        if (template.get("spec") or {}).get("activeDeadlineSeconds") is not None:
            causes.forbidden("spec.template.spec.activeDeadlineSeconds", f"activeDeadlineSeconds in {self.kind_word} is not Supported")
        self.check_spec(spec, causes)

    def check_spec(self, spec: ReadOnly, causes: Causes) -> None:
        """The workload's own fields."""

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        if self.selector_is_immutable:
            causes.immutable("spec.selector", new["spec"].get("selector"), old["spec"].get("selector"))


def validate_amount(value: int | str | None, path: str, causes: Causes) -> None:
    """A count or a percentage of at most 100."""
    if isinstance(value, str):
        number = value.removesuffix("%")
        if not value.endswith("%") or not number.isdecimal():
            causes.invalid(
                path,
                value,
                _PERCENT_WORDS,
            )
    elif value is not None and value < 0:
        causes.invalid(path, value, "must be greater than or equal to 0")


def is_zero(value: int | str | None) -> bool:
    return value in (None, 0, "0%")


def template_labels(spec: Mapping[str, Any]) -> Mapping[str, str]:
    return ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
