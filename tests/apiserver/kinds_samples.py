"""Manifests the tests of kinds share."""

from __future__ import annotations

import copy
from typing import Any

from atoll.apiserver.kinds import rules_for
from atoll.apiserver.machinery.kind import Cause, Kind, KindRegistry

REGISTRY = KindRegistry.builtin()


def kind_of(obj: dict[str, Any]) -> Kind:
    kind = REGISTRY.by_api_version(obj["apiVersion"], obj["kind"])
    assert kind
    return kind


def pod(**spec: Any) -> dict[str, Any]:
    spec.setdefault("containers", [{"name": "web", "image": "nginx"}])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default", "uid": "u1"}, "spec": spec}


def deployment(**spec: Any) -> dict[str, Any]:
    spec.setdefault("selector", {"matchLabels": {"app": "web"}})
    spec.setdefault("template", {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx:1"}]}})
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"}, "spec": spec}


def service(**spec: Any) -> dict[str, Any]:
    spec.setdefault("ports", [{"port": 80}])
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": spec}


def claim(**spec: Any) -> dict[str, Any]:
    spec.setdefault("accessModes", ["ReadWriteOnce"])
    spec.setdefault("resources", {"requests": {"storage": "1Gi"}})
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "default"}, "spec": spec}


def created(obj: dict[str, Any]) -> tuple[dict[str, Any], list[Cause]]:
    """The object as the server would store it, and what it finds wrong with it."""
    kind = kind_of(obj)
    outcome = kind.schema.validate(copy.deepcopy(obj))
    assert not outcome.error, outcome.error
    assert not outcome.unknown, outcome.unknown
    rules = rules_for(kind)
    rules.default(outcome.object)
    rules.prepare_for_create(kind, outcome.object)
    rules.default(outcome.object)
    return outcome.object, rules.validate(kind, outcome.object)


def updated(old: dict[str, Any], new: dict[str, Any], subresource: str = "") -> tuple[dict[str, Any], list[Cause]]:
    kind, rules = kind_of(old), rules_for(kind_of(old))
    new = kind.schema.validate(copy.deepcopy(new)).object
    rules.default(new)
    rules.prepare_for_update(kind, new, old, subresource)
    return new, rules.validate_update(kind, new, old, subresource)


def told(causes: list[Cause]) -> list[str]:
    return [f"{cause.field}: {cause.message}" for cause in causes]
