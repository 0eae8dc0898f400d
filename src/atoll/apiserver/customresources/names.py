"""The names a definition may have among those of its group, and the conditions that tell (upstream's naming and establishing
controllers).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Object = dict[str, Any]
_REASONS = {
    "plural": "PluralConflict",
    "singular": "SingularConflict",
    "shortNames": "ShortNamesConflict",
    "kind": "KindConflict",
    "listKind": "ListKindConflict",
}
APPROVAL = "api-approved.kubernetes.io"


def accept(definition: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> tuple[Object, str, str]:
    """The accepted names, and reason and message of the last conflict ("" when there is none).

    `others` are the names that the other definitions of the group have been granted.
    """
    wanted = definition["spec"]["names"]
    resources: set[str] = set()
    kinds: set[str] = set()
    for granted in others:
        resources.update(name for name in (granted.get("plural"), granted.get("singular"), *(granted.get("shortNames") or ())) if name)
        kinds.update(name for name in (granted.get("kind"), granted.get("listKind")) if name)
    accepted: Object = dict((definition.get("status") or {}).get("acceptedNames") or {})
    reason = message = ""
    for field, why in _REASONS.items():
        value = wanted.get(field)
        taken = kinds if field in ("kind", "listKind") else resources
        clash = next((name for name in (value if isinstance(value, list) else [value]) if name in taken), None)
        if clash is not None:
            reason, message = why, f'"{clash}" is already in use'
        elif value:
            accepted[field] = value
        else:
            accepted.pop(field, None)
    if wanted.get("categories"):
        accepted["categories"] = wanted["categories"]
    else:
        accepted.pop("categories", None)
    return accepted, reason, message


def is_true(definition: Mapping[str, Any], kind: str) -> bool:
    return any(entry["type"] == kind and entry["status"] == "True" for entry in (definition.get("status") or {}).get("conditions") or ())


def granted_status(definition: Mapping[str, Any], others: Iterable[Mapping[str, Any]], now: str) -> Object:
    """The status with NamesAccepted and Established brought up to date; equal to the present one when nothing has changed."""
    accepted, reason, message = accept(definition, others)
    status: Object = {**(definition.get("status") or {}), "acceptedNames": accepted}
    entries = list(status.get("conditions") or ())
    if reason:
        entries = put(entries, "NamesAccepted", "False", reason, message, now)
    else:
        entries = put(entries, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now)
    if not is_true(definition, "Established"):
        if reason:
            entries = put(entries, "Established", "False", "NotAccepted", "not all names are accepted", now)
        else:
            told = "the initial names have been accepted"
            entries = put(entries, "Established", "True", "InitialNamesAccepted", told, now)
    approval = ((definition.get("metadata") or {}).get("annotations") or {}).get(APPROVAL)
    if approval:
        entries = _approved(entries, approval, now)
    return {**status, "conditions": entries}


def _approved(entries: list[Object], approval: str, now: str) -> list[Object]:
    kind = "KubernetesAPIApprovalPolicyConformant"
    if approval.startswith("unapproved"):
        return put(entries, kind, "False", "UnapprovedAPI", f'not approved: "{approval}"', now)
    return put(entries, kind, "True", "ApprovedAnnotation", f"approved in {approval}", now)


def put(entries: list[Object], kind: str, status: str, reason: str, message: str, now: str) -> list[Object]:
    """The conditions with this one set; its transition time moves only when its status does."""
    made = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}
    found = next((entry for entry in entries if entry["type"] == kind), None)
    if found is None:
        return [*entries, made]
    if found["status"] == status:
        made["lastTransitionTime"] = found.get("lastTransitionTime", now)
    return [made if entry is found else entry for entry in entries]
