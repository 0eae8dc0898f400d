"""Rules of metadata, which are the same for every kind (apimachinery, api/validation)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes

ANNOTATIONS_MAX = 256 * 1024
NameCheck = Callable[[str], list[str]]


def validate_metadata(obj: Mapping[str, Any], namespaced: bool, check_name: NameCheck, causes: Causes) -> None:
    metadata = obj.get("metadata") or {}
    name, base = metadata.get("name") or "", metadata.get("generateName") or ""
    if base:
        # What a generated name appends stands for the last dash.
        causes.each("metadata.generateName", base, check_name(base[:-1] + "a" if base.endswith("-") else base))
    if name:
        causes.each("metadata.name", name, check_name(name))
    else:
        causes.required("metadata.name", "name or generateName is required")
    namespace = metadata.get("namespace") or ""
    if namespaced:
        if namespace:
            causes.each("metadata.namespace", namespace, names.label(namespace))
        else:
            causes.required("metadata.namespace")
    elif namespace:
        causes.forbidden("metadata.namespace", "not allowed on this type")
    _labels_and_owners(metadata, causes)


def validate_metadata_update(new: Mapping[str, Any], old: Mapping[str, Any], causes: Causes) -> None:
    """`new` and `old` are objects. What only the server sets (uid, creationTimestamp) has been carried over before."""
    metadata, before = new.get("metadata") or {}, old.get("metadata") or {}
    for field in ("name", "namespace"):
        causes.immutable(f"metadata.{field}", metadata.get(field), before.get(field))
    if metadata.get("uid") and metadata["uid"] != before.get("uid"):
        causes.invalid("metadata.uid", metadata["uid"], "field is immutable")
    if before.get("deletionTimestamp"):
        added = sorted(set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ()))
        if added:
            listed = ", ".join(f'"{name}"' for name in added)
            causes.forbidden(
                "metadata.finalizers",
                f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}",
            )
    if metadata != before:
        _labels_and_owners(metadata, causes)


def validate_labels(labels: Mapping[str, str] | None, path: str, causes: Causes) -> None:
    for key, value in (labels or {}).items():
        causes.each(path, key, names.qualified_name(key))
        causes.each(path, value, names.label_value(value))


def validate_annotations(annotations: Mapping[str, str] | None, path: str, causes: Causes) -> None:
    size = 0
    for key, value in (annotations or {}).items():
        causes.each(path, key, names.qualified_name(key.lower()))
        size += len(key) + len(value)
    if size > ANNOTATIONS_MAX:
        causes.too_long(path, ANNOTATIONS_MAX)


def _labels_and_owners(metadata: Mapping[str, Any], causes: Causes) -> None:
    validate_labels(metadata.get("labels"), "metadata.labels", causes)
    validate_annotations(metadata.get("annotations"), "metadata.annotations", causes)
    for index, finalizer in enumerate(metadata.get("finalizers") or ()):
        causes.each(f"metadata.finalizers[{index}]", finalizer, names.qualified_name(finalizer))
    controllers = []
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        path = f"metadata.ownerReferences[{index}]"
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                word = "version" if field == "apiVersion" else field
                causes.invalid(f"{path}.{field}", owner.get(field) or "", f"{word} must not be empty")
        if owner.get("controller"):
            controllers.append(f"{owner.get('kind')}/{owner.get('name')}")
    if len(controllers) > 1:
        causes.invalid(
            "metadata.ownerReferences",
            metadata["ownerReferences"],
            f'Only one reference can have Controller set to true. Found "true" in references for {" and ".join(controllers[:2])}',
        )
