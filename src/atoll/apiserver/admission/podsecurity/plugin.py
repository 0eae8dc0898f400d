"""PodSecurity as admission calls it: pods are refused, warned of and noted for audit; workloads are warned of what their pods will meet.

Changes that the standard does not look at (labels, status) are not judged again, so that a pod from before the labels can still be
handled. Nothing is exempt, as in a stock server without a configuration file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.admission.podsecurity.evaluate import details, reasons, violations
from atoll.apiserver.admission.podsecurity.pod import Subject
from atoll.apiserver.admission.podsecurity.policy import PREFIX, PRIVILEGED, Policy, policy_of
from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses

PODS_CHECKED_MAX = 3_000  # of a namespace that becomes stricter; upstream's bound
MaybeObject = Mapping[str, Any] | None
_JUDGED = ("", "ephemeralcontainers", "resize")  # of a pod's subresources
_WORKLOADS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "podtemplates"): ("template",),
    ("", "replicationcontrollers"): ("spec", "template"),
    ("apps", "daemonsets"): ("spec", "template"),
    ("apps", "deployments"): ("spec", "template"),
    ("apps", "replicasets"): ("spec", "template"),
    ("apps", "statefulsets"): ("spec", "template"),
    ("batch", "cronjobs"): ("spec", "jobTemplate", "spec", "template"),
    ("batch", "jobs"): ("spec", "template"),
}


def check_pod_security(core: Core, call: Call, new: Mapping[str, Any], old: MaybeObject) -> None:
    """Raises StatusError 403 for a pod, 422 for a namespace with labels that say nothing."""
    kind = call.kind.group, call.kind.plural
    if kind == ("", "pods"):
        _pod(core, call, new, old)
    elif kind == ("", "namespaces"):
        _namespace(core, call, new, old)
    elif kind in _WORKLOADS and not call.subresource:
        _workload(core, call, new, _WORKLOADS[kind])


def _policy(core: Core, call: Call) -> Policy:
    item = core.find("", "v1", "namespaces", call.namespace or "")
    policy, wrong = policy_of(item.obj["metadata"].get("labels") if item else None)
    if wrong:
        call.annotate(f"{PREFIX}error", f"Failed to parse policy: {'; '.join(f'{cause.field}: {cause.message}' for cause in wrong)}")
    return policy


def _pod(core: Core, call: Call, new: Mapping[str, Any], old: MaybeObject) -> None:
    if call.subresource not in _JUDGED:
        return
    policy = _policy(core, call)
    if policy.asks_nothing or (old is not None and not _matters(new, old)):
        return
    subject = Subject(new["metadata"], new.get("spec") or {})
    call.annotate(f"{PREFIX}enforce-policy", str(policy.enforce))
    found = violations(policy.enforce, subject)
    _note(call, policy, subject)
    if found:
        raise statuses.forbidden(call.kind, call.name, f'violates PodSecurity "{policy.enforce}": {details(found)}')
    _warn(call, policy, subject)


def _workload(core: Core, call: Call, new: Mapping[str, Any], path: tuple[str, ...]) -> None:
    policy = _policy(core, call)
    if policy.warn.level == policy.audit.level == PRIVILEGED:
        return
    template: Any = new
    for step in path:
        template = template.get(step) or {}
    if template.get("spec"):
        subject = Subject(template.get("metadata") or {}, template["spec"])
        _note(call, policy, subject)
        _warn(call, policy, subject)


def _note(call: Call, policy: Policy, subject: Subject) -> None:
    found = violations(policy.audit, subject)
    if found:
        call.annotate(f"{PREFIX}audit-violations", f'would violate PodSecurity "{policy.audit}": {details(found)}')


def _warn(call: Call, policy: Policy, subject: Subject) -> None:
    found = violations(policy.warn, subject)
    if found:
        call.warnings.append(f'would violate PodSecurity "{policy.warn}": {details(found)}')


def _namespace(core: Core, call: Call, new: Mapping[str, Any], old: MaybeObject) -> None:
    if call.subresource:
        return
    policy, wrong = policy_of(new["metadata"].get("labels"))
    if old is None:
        if wrong:
            raise statuses.invalid(call.kind, call.name or "", wrong)
        return
    former, was_wrong = policy_of(old["metadata"].get("labels"))
    if wrong and wrong != was_wrong:
        raise statuses.invalid(call.kind, call.name or "", wrong)
    wanted, had = policy.enforce, former.enforce
    if wanted == had or wanted.level == PRIVILEGED or (wanted.minor == had.minor and not wanted.is_stricter_than(had)):
        return
    _warn_of_present(core, call, policy)


def _warn_of_present(core: Core, call: Call, policy: Policy) -> None:
    """Pods that are there already stay, but whoever made the namespace stricter is told."""
    kind = core.registry.get("", "v1", "pods")
    pods = list(core.cacher(kind).in_order(call.name)) if kind else []
    broken: dict[str, list[str]] = {}
    for item in pods[:PODS_CHECKED_MAX]:
        found = violations(policy.enforce, Subject(item.obj["metadata"], item.obj.get("spec") or {}))
        if found:
            broken.setdefault(reasons(found), []).append(item.obj["metadata"]["name"])
    if len(pods) > PODS_CHECKED_MAX:
        call.warnings.append(
            f"new PodSecurity enforce level only checked against the first {PODS_CHECKED_MAX} of {len(pods)} existing pods"
        )
    if broken:
        call.warnings.append(f'existing pods in namespace "{call.name}" violate the new PodSecurity enforce level "{policy.enforce}"')
    told = []
    for why, names in broken.items():
        others = f" (and {len(names) - 1} other pod{'s' if len(names) > 2 else ''})" if len(names) > 1 else ""
        told.append(f"{min(names)}{others}: {why}")
    call.warnings.extend(sorted(told))


def _matters(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether a change touches what the standard looks at and what a pod's update may change: its containers and old annotations."""
    return bool(_seen(new) != _seen(old))


def _seen(pod: Mapping[str, Any]) -> Any:
    spec = pod.get("spec") or {}
    annotations = pod["metadata"].get("annotations") or {}
    return [
        [(container.get("name"), container.get("image"), container.get("securityContext")) for container in spec.get(field) or ()]
        for field in ("containers", "initContainers", "ephemeralContainers")
    ] + [{key: value for key, value in annotations.items() if "seccomp.security" in key or "apparmor.security" in key}]
