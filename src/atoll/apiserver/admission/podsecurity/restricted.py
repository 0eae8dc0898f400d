"""The checks of the restricted level, beside those of the baseline: the hardening that a pod has to ask for itself.

A check with the key of one of the baseline's takes its place, because it asks for more of the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.admission.podsecurity.baseline import SECCOMP_TYPES, seccomp
from atoll.apiserver.admission.podsecurity.pod import Check, Container, Subject, Violation, numbered, quoted, setters

_VOLUMES = ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret")


def privilege_escalation(subject: Subject) -> Violation | None:
    names = subject.named(lambda context, _: context.get("allowPrivilegeEscalation") is not False)
    if not names:
        return None
    detail = f"{numbered('container', names)} must set securityContext.allowPrivilegeEscalation=false"
    return Violation("allowPrivilegeEscalation != false", detail)


def capabilities(subject: Subject) -> Violation | None:
    added: set[str] = set()

    def adds(context: Mapping[str, Any], _: Container) -> bool:
        bad = set((context.get("capabilities") or {}).get("add") or ()) - {"NET_BIND_SERVICE"}
        added.update(bad)
        return bool(bad)

    keeping = subject.named(lambda context, _: "ALL" not in ((context.get("capabilities") or {}).get("drop") or ()))
    adding = subject.named(adds)
    told = [f'{numbered("container", keeping)} must set securityContext.capabilities.drop=["ALL"]'] if keeping else []
    if adding:
        told.append(f"{numbered('container', adding)} must not include {quoted(sorted(added))} in securityContext.capabilities.add")
    return Violation("unrestricted capabilities", "; ".join(told)) if told else None


def volumes(subject: Subject) -> Violation | None:
    bad: dict[str, list[str]] = {}
    for volume in subject.spec.get("volumes") or ():
        if not any(volume.get(kind) is not None for kind in _VOLUMES):
            bad[volume["name"]] = [kind for kind in volume if kind != "name"] or ["unknown"]
    if not bad:
        return None
    kinds = sorted({kind for each in bad.values() for kind in each})
    verb = "uses" if len(bad) == 1 else "use"
    return Violation("restricted volume types", f"{numbered('volume', list(bad))} {verb} {numbered('restricted volume type', kinds)}")


def non_root(subject: Subject) -> Violation | None:
    reason = "runAsNonRoot != true"
    who = setters(subject, lambda context: context.get("runAsNonRoot") is False)
    if who:
        return Violation(reason, f"{who} must not set securityContext.runAsNonRoot=false")
    if subject.context.get("runAsNonRoot"):
        return None
    names = subject.named(lambda context, _: not context.get("runAsNonRoot"))
    return Violation(reason, f"pod or {numbered('container', names)} must set securityContext.runAsNonRoot=true") if names else None


def user(subject: Subject) -> Violation | None:
    who = setters(subject, lambda context: context.get("runAsUser") == 0)
    return Violation("runAsUser=0", f"{who} must not set runAsUser=0") if who else None


def non_root_35(subject: Subject) -> Violation | None:
    return None if subject.has_own_users else non_root(subject)


def user_35(subject: Subject) -> Violation | None:
    return None if subject.has_own_users else user(subject)


def seccomp_profile(subject: Subject) -> Violation | None:
    set_wrong = seccomp(subject)
    if set_wrong:
        return set_wrong
    if (subject.context.get("seccompProfile") or {}).get("type") in SECCOMP_TYPES:
        return None
    names = subject.named(lambda context, _: not context.get("seccompProfile"))
    if not names:
        return None
    detail = f'pod or {numbered("container", names)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return Violation("seccompProfile", detail)


def _unless_windows(check: Check) -> Check:
    """Since 1.25: what Windows does not know is not asked of its pods."""
    return lambda subject: None if subject.is_windows else check(subject)


CHECKS: tuple[tuple[str, int, Check], ...] = (
    ("privilegeEscalation", 8, privilege_escalation),
    ("privilegeEscalation", 25, _unless_windows(privilege_escalation)),
    ("capabilities", 22, capabilities),
    ("capabilities", 25, _unless_windows(capabilities)),
    ("hostPaths", 0, volumes),
    ("nonRoot", 0, non_root),
    ("nonRoot", 35, non_root_35),
    ("user", 23, user),
    ("user", 35, user_35),
    ("seccomp", 19, seccomp_profile),
    ("seccomp", 25, _unless_windows(seccomp_profile)),
)
