"""Jobs: their selector is made from their uid, so that two jobs never share pods."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.job_indexes import check_indexes
from atoll.apiserver.kinds.label_selectors import selects
from atoll.apiserver.kinds.pod_spec import validate_template
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules
from atoll.apiserver.kinds.workloads import default_template, template_labels
from atoll.apiserver.machinery.kind import Kind

UID_LABEL, NAME_LABEL = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"
_OLD_UID_LABEL, _OLD_NAME_LABEL = "controller-uid", "job-name"
RESTART_POLICIES = ("OnFailure", "Never")
_BACKOFF_LIMIT, _BACKOFF_UNLIMITED = 6, 0x7FFFFFFF
_COUNTS = (
    *("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"),
    *("backoffLimitPerIndex", "maxFailedIndexes"),
)
_IMMUTABLE = ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "successPolicy", "managedBy", "podReplacementPolicy")
_SUSPENDED_MAY_CHANGE = ("nodeSelector", "tolerations", "schedulingGates", "affinity")


class JobRules(Rules):
    counts_generations = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        default_template(spec)
        if "completions" not in spec and "parallelism" not in spec:
            spec["completions"] = 1
        spec.setdefault("parallelism", 1)
        spec.setdefault("backoffLimit", _BACKOFF_UNLIMITED if "backoffLimitPerIndex" in spec else _BACKOFF_LIMIT)
        spec.setdefault("completionMode", "NonIndexed")
        spec.setdefault("suspend", False)
        spec.setdefault("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")
        for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
            for condition in rule.get("onPodConditions") or ():
                condition.setdefault("status", "True")

    def prepare_for_create(self, kind: Kind, obj: Object) -> None:
        super().prepare_for_create(kind, obj)
        spec, metadata = obj["spec"], obj["metadata"]
        if spec.get("manualSelector"):
            return
        labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
        for key, value in ((UID_LABEL, "uid"), (_OLD_UID_LABEL, "uid"), (NAME_LABEL, "name"), (_OLD_NAME_LABEL, "name")):
            labels.setdefault(key, metadata.get(value) or "")
        spec.setdefault("selector", {}).setdefault("matchLabels", {}).setdefault(UID_LABEL, metadata.get("uid") or "")

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        check_job_spec(obj.get("spec") or {}, "spec", causes)
        spec = obj.get("spec") or {}
        selector = spec.get("selector")
        if selector is None:
            causes.required("spec.selector")
        elif not selects(selector, template_labels(spec)):
            causes.invalid("spec.template.metadata.labels", template_labels(spec), "`selector` does not match template `labels`")

    def check_new(self, obj: ReadOnly, causes: Causes) -> None:
        spec, uid = obj.get("spec") or {}, (obj.get("metadata") or {}).get("uid")
        if not spec.get("manualSelector") and (spec.get("selector") or {}).get("matchLabels") != {UID_LABEL: uid}:
            causes.invalid("spec.selector", spec.get("selector"), "`selector` not auto-generated")

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        after, before = new["spec"], old["spec"]
        causes.immutable("spec.selector", after.get("selector"), before.get("selector"))
        if after.get("completions") != before.get("completions"):
            elastic = after.get("completionMode") == "Indexed" and after.get("completions") == after.get("parallelism")
            if not elastic:
                causes.invalid("spec.completions", after.get("completions"), "field is immutable")
        for field in _IMMUTABLE:
            causes.immutable(f"spec.{field}", after.get(field), before.get(field))
        if _fixed(after["template"], before) != _fixed(before["template"], before):
            causes.invalid("spec.template", after["template"], "field is immutable")

    def extra_fields(self, obj: ReadOnly) -> dict[str, str]:
        return {"status.successful": str((obj.get("status") or {}).get("succeeded") or 0)}


def check_job_spec(spec: ReadOnly, path: str, causes: Causes) -> None:
    for field in _COUNTS:
        causes.non_negative(f"{path}.{field}", spec.get(field))
    validate_template(spec.get("template") or {}, f"{path}.template", causes, RESTART_POLICIES)
    mode = spec.get("completionMode") or "NonIndexed"
    if mode not in ("Indexed", "NonIndexed"):
        causes.unsupported(f"{path}.completionMode", mode, ("Indexed", "NonIndexed"))
    elif mode == "Indexed" and spec.get("completions") is None:
        causes.required(f"{path}.completions", "when completion mode is Indexed")
    check_indexes(spec, path, causes)


def _fixed(template: ReadOnly, before: ReadOnly) -> ReadOnly:
    """The part of a template that may not change: scheduling directives may, while the job is suspended and has not started."""
    if not before.get("suspend"):
        return template
    spec = {key: value for key, value in (template.get("spec") or {}).items() if key not in _SUSPENDED_MAY_CHANGE}
    metadata = {key: value for key, value in (template.get("metadata") or {}).items() if key not in ("labels", "annotations")}
    return {**template, "metadata": metadata, "spec": spec}


RULES = JobRules()
