"""Definitions of custom resources: names that agree with each other, exactly one version that is stored, schemas that can be enforced."""

from __future__ import annotations

from typing import Any

from atoll.apiserver.customresources.accept import check_versions
from atoll.apiserver.customresources.conversion import REVIEW_VERSIONS
from atoll.apiserver.customresources.definition import FINALIZER
from atoll.apiserver.customresources.names import APPROVAL, is_true, put
from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules
from atoll.apiserver.kinds.webhooks import check_client, default_client
from atoll.apiserver.machinery.kind import Kind

_SCOPES = ("Cluster", "Namespaced")
_STRATEGIES = ("None", "Webhook")
_PROTECTED = (".k8s.io", ".kubernetes.io")
_KIND_NAMES = ("kind", "listKind")


class CustomResourceDefinitionRules(Rules):
    counts_generations = True
    slow = True  # a megabyte of schema, with its CEL rules, takes half a second

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        told = spec.setdefault("names", {})
        kind = told.get("kind") or ""
        if kind:
            told.setdefault("singular", kind.lower())
            told.setdefault("listKind", f"{kind}List")
        conversion = spec.setdefault("conversion", {})
        conversion.setdefault("strategy", "None")
        default_client((conversion.get("webhook") or {}).get("clientConfig"))
        for version in spec.get("versions") or ():
            version.setdefault("served", False)
            version.setdefault("storage", False)

    def initial_status(self, obj: ReadOnly) -> Object:
        return {"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": [_stored(obj)]}

    def prepare_for_update(self, kind: Kind, new: Object, old: ReadOnly, subresource: str = "") -> None:
        super().prepare_for_update(kind, new, old, subresource)
        status = new.setdefault("status", {})
        version, stored = _stored(new), list(status.get("storedVersions") or ())
        if subresource != "status" and version and version not in stored:
            new["status"] = {**status, "storedVersions": [*stored, version]}

    def prepare_for_delete(self, obj: Object, now: str) -> None:
        """Its objects go first: the finalizer holds the definition until they have."""
        finalizers = obj["metadata"].setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)
        status = obj.setdefault("status", {})
        told = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
        status["conditions"] = put(list(status.get("conditions") or ()), "Terminating", "True", "InstanceDeletionPending", told, now)

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec, name = obj.get("spec") or {}, (obj.get("metadata") or {}).get("name") or ""
        told, group = spec.get("names") or {}, spec.get("group") or ""
        if name != f"{told.get('plural') or ''}.{group}":
            causes.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
        if not group:
            causes.required("spec.group")
        elif "." not in group:
            causes.invalid("spec.group", group, "should be a domain with at least one dot")
        else:
            causes.each("spec.group", group, names.subdomain(group))
        causes.one_of("spec.scope", spec.get("scope"), _SCOPES)
        _check_names(told, causes)
        versions = spec.get("versions") or ()
        if sum(bool(version.get("storage")) for version in versions) != 1:
            causes.invalid("spec.versions", versions, "must have exactly one version marked as storage version")
        if spec.get("preserveUnknownFields"):
            causes.invalid("spec.preserveUnknownFields", True, "must be false")
        _check_conversion(spec.get("conversion") or {}, causes)
        if not causes:
            check_versions(spec, causes)

    def check_new(self, obj: ReadOnly, causes: Causes) -> None:
        group = (obj.get("spec") or {}).get("group") or ""
        annotations = obj["metadata"].get("annotations") or {}
        if group.endswith(_PROTECTED) and not annotations.get(APPROVAL):
            causes.required(
                f"metadata.annotations[{APPROVAL}]",
                f'protected groups must have approval annotation "{APPROVAL}", see https://github.com/kubernetes/enhancements/pull/1111',
            )

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        causes.immutable("spec.group", new["spec"].get("group"), old["spec"].get("group"))
        causes.immutable("spec.names.plural", new["spec"]["names"].get("plural"), old["spec"]["names"].get("plural"))
        if is_true(old, "Established"):
            causes.immutable("spec.scope", new["spec"].get("scope"), old["spec"].get("scope"))
            causes.immutable("spec.names.kind", new["spec"]["names"].get("kind"), old["spec"]["names"].get("kind"))
        present = [version.get("name") for version in new["spec"].get("versions") or ()]
        for index, version in enumerate((new.get("status") or {}).get("storedVersions") or ()):
            if version not in present:
                causes.invalid(
                    f"status.storedVersions[{index}]",
                    version,
                    f"missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a "
                    f"storage migration ensures no data remains persisted in {version} and removes {version} from status.storedVersions",
                )

    def check_status(self, new: ReadOnly, old: ReadOnly, causes: Causes) -> None:
        stored = (new.get("status") or {}).get("storedVersions") or ()
        if not stored:
            causes.invalid("status.storedVersions", list(stored), "must have at least one stored version")
        elif _stored(new) not in stored:
            causes.invalid("status.storedVersions", list(stored), f"must have the storage version {_stored(new)}")


def _stored(obj: ReadOnly) -> str:
    versions = (obj.get("spec") or {}).get("versions") or ()
    return next((str(version.get("name", "")) for version in versions if version.get("storage")), "")


def _check_names(told: ReadOnly, causes: Causes) -> None:
    for field in ("plural", "singular"):
        if told.get(field):
            causes.each(f"spec.names.{field}", told[field], names.label_1035(told[field]))
        else:
            causes.required(f"spec.names.{field}")
    for field in _KIND_NAMES:
        if told.get(field):
            causes.each(f"spec.names.{field}", told[field], names.label_1035(told[field].lower()))
        else:
            causes.required(f"spec.names.{field}")
    for field in ("shortNames", "categories"):
        for index, each in enumerate(told.get(field) or ()):
            causes.each(f"spec.names.{field}[{index}]", each, names.label_1035(each))
    if told.get("kind") and told.get("kind") == told.get("listKind"):
        causes.invalid("spec.names.listKind", told["listKind"], "kind and listKind may not be the same")


def _check_conversion(conversion: dict[str, Any], causes: Causes) -> None:
    causes.one_of("spec.conversion.strategy", conversion.get("strategy"), _STRATEGIES)
    if conversion.get("strategy") == "Webhook":
        _check_webhook(conversion.get("webhook"), causes)
        return
    if conversion.get("webhook") is not None:
        causes.forbidden("spec.conversion.webhook", "should not be set when strategy is not set to Webhook")


def _check_webhook(webhook: dict[str, Any] | None, causes: Causes) -> None:
    path = "spec.conversion.webhook"
    if webhook is None or webhook.get("clientConfig") is None:
        causes.required(f"{path}.clientConfig", "required when strategy is set to Webhook")
        return
    versions = webhook.get("conversionReviewVersions") or ()
    if not versions:
        causes.required(f"{path}.conversionReviewVersions")
    elif not set(versions) & set(REVIEW_VERSIONS):
        causes.invalid(f"{path}.conversionReviewVersions", versions, f"must include at least one of {', '.join(REVIEW_VERSIONS)}")
    check_client(webhook["clientConfig"], f"{path}.clientConfig", causes)


RULES = CustomResourceDefinitionRules()
