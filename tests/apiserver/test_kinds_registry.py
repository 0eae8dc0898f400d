from __future__ import annotations

import dataclasses

from atoll.apiserver.kinds import rules_for
from atoll.apiserver.machinery.kind import KindRegistry
from atoll.apiserver.machinery.schema_file import schema_file

REGISTRY = KindRegistry.builtin()
SCHEMALESS = {"NodeProxyOptions", "PodAttachOptions", "PodExecOptions", "PodPortForwardOptions", "PodProxyOptions", "ServiceProxyOptions"}


def test_lookup_by_resource_kind_and_api_version() -> None:
    deployments = REGISTRY.get("apps", "v1", "deployments")
    assert deployments
    assert deployments is REGISTRY.by_gvk("apps", "v1", "Deployment") is REGISTRY.by_api_version("apps/v1", "Deployment")
    assert REGISTRY.by_api_version("v1", "Pod") is REGISTRY.get("", "v1", "pods")
    assert REGISTRY.get("apps", "v1", "pods") is None


def test_facts_of_pods_and_deployments() -> None:
    pods, deployments = REGISTRY.get("", "v1", "pods"), REGISTRY.get("apps", "v1", "deployments")
    assert pods
    assert deployments
    assert (pods.short_names, pods.categories, pods.namespaced, pods.singular, pods.list_kind) == (
        ("po",),
        ("all",),
        True,
        "pod",
        "PodList",
    )
    assert [sub.name for sub in pods.subresources] == [
        "attach",
        "binding",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "log",
        "portforward",
        "proxy",
        "resize",
        "status",
    ]
    scale, status = deployments.subresource("scale"), deployments.subresource("status")
    assert scale
    assert status
    assert scale.gvk == ("autoscaling", "v1", "Scale")
    assert status.gvk == ("apps", "v1", "Deployment")
    assert deployments.has_status
    assert deployments.resource == "deployments.apps"


def test_every_kind_has_a_type_and_rules() -> None:
    for kind in REGISTRY:
        assert schema_file().number(*kind.gvk) >= 0, kind
        assert rules_for(kind).selectable_fields({"metadata": {"name": "x"}})["metadata.name"] == "x"
        if "list" in kind.verbs:
            assert schema_file().number(kind.group, kind.version, kind.list_kind) >= 0, kind
        for sub in kind.subresources:
            assert sub.gvk.kind in SCHEMALESS or schema_file().number(*sub.gvk) >= 0, sub


def test_groups_stand_in_discovery_order_with_the_preferred_version_first() -> None:
    groups = REGISTRY.groups()
    assert next(iter(groups)) == ""
    assert list(groups["autoscaling"]) == ["v2", "v1"]
    assert len(groups) == 21


def test_adding_replaces_and_removing_forgets() -> None:
    registry = KindRegistry.builtin()
    pods = registry.get("", "v1", "pods")
    assert pods
    registry.add(dataclasses.replace(pods, kind="Cod"))
    assert registry.by_gvk("", "v1", "Pod") is None
    assert registry.by_gvk("", "v1", "Cod") is registry.get("", "v1", "pods")
    assert registry.remove("", "v1", "pods") is not None
    assert registry.remove("", "v1", "pods") is None
    assert registry.by_gvk("", "v1", "Cod") is None
