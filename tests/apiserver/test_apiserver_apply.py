"""Server-side apply: merging, ownership, conflicts, force, removal; seen through the in-process client."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.apiserver import ApiServer, ApiServerConfig, InProcessClient
from atoll.apiserver.machinery import fieldsets
from atoll.apiserver.machinery.kind import ListMeta
from atoll.client.resources import CONFIG_MAPS, DEPLOYMENTS
from atoll.errors import StatusError


def run(tmp_path, scenario):
    async def whole():
        server = ApiServer(ApiServerConfig(store=tmp_path / "store.db"))
        await server.start()
        try:
            await scenario(InProcessClient(server))
        finally:
            await server.close()

    asyncio.run(whole())


def configmap(**data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}


def deployment(*containers, **spec):
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": list(containers)}}
    whole = {"selector": {"matchLabels": {"a": "b"}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": whole}


def applying(client, resource):
    async def apply(manager, obj, *, force=False):
        return await client.patch(resource, "a", obj, "default", kind="apply", field_manager=manager, force=force)

    return apply


def owners(obj):
    return {(e["manager"], e["operation"]): e["fieldsV1"] for e in obj["metadata"]["managedFields"]}


def test_two_managers_share_a_map(tmp_path):
    async def scenario(client):
        apply = applying(client, CONFIG_MAPS)
        made = await apply("one", configmap(x="1", y="1"))
        assert owners(made) == {("one", "Apply"): {"f:data": {"f:x": {}, "f:y": {}}}}
        assert (await apply("two", configmap(z="2")))["data"] == {"x": "1", "y": "1", "z": "2"}
        again = await apply("two", configmap(z="2"))
        assert (await apply("two", configmap(z="2")))["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]
        assert (await apply("one", configmap(x="1")))["data"] == {"x": "1", "z": "2"}

    run(tmp_path, scenario)


def test_a_field_of_another_is_a_conflict_unless_forced(tmp_path):
    async def scenario(client):
        apply = applying(client, CONFIG_MAPS)
        await apply("one", configmap(x="1"))
        with pytest.raises(StatusError) as refused:
            await apply("two", configmap(x="2"))
        assert refused.value.message == 'Apply failed with 1 conflict: conflict with "one": .data.x'
        assert refused.value.details == {
            "causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.x"}]
        }
        forced = await apply("two", configmap(x="2"), force=True)
        assert owners(forced) == {("two", "Apply"): {"f:data": {"f:x": {}}}}
        shared = await apply("three", configmap(x="2"))
        assert {manager for manager, _ in owners(shared)} == {"two", "three"}
        kept = await apply("two", configmap())
        assert kept["data"] == {"x": "2"}

    run(tmp_path, scenario)


def test_updates_take_what_they_change(tmp_path):
    async def scenario(client):
        apply = applying(client, CONFIG_MAPS)
        await apply("one", configmap(x="1", y="1"))
        changed = await client.patch(CONFIG_MAPS, "a", {"data": {"x": "9"}}, "default", field_manager="editor")
        assert owners(changed) == {("one", "Apply"): {"f:data": {"f:y": {}}}, ("editor", "Update"): {"f:data": {"f:x": {}}}}
        with pytest.raises(StatusError) as refused:
            await apply("one", configmap(x="1", y="1"))
        assert 'conflict with "editor" using v1: .data.x' in refused.value.message

    run(tmp_path, scenario)


def test_what_was_there_before_belongs_to_before(tmp_path):
    async def scenario(client):
        await client.create(CONFIG_MAPS, configmap(x="1"), "default")
        with pytest.raises(StatusError, match="before-first-apply"):
            await applying(client, CONFIG_MAPS)("one", configmap(x="2"))
        await applying(client, CONFIG_MAPS)("one", configmap(x="1"))

    run(tmp_path, scenario)


def test_containers_are_merged_by_name_and_ports_by_number_and_protocol(tmp_path):
    async def scenario(client):
        apply = applying(client, DEPLOYMENTS)
        web = {"name": "web", "image": "i", "ports": [{"containerPort": 80}]}
        await apply("one", deployment(web, replicas=3))
        side = {"name": "side", "image": "s"}
        both = await apply("two", deployment(side))
        assert [c["name"] for c in both["spec"]["template"]["spec"]["containers"]] == ["web", "side"]
        fewer = await apply("one", deployment({"name": "web", "image": "j"}))
        containers = fewer["spec"]["template"]["spec"]["containers"]
        assert [c["name"] for c in containers] == ["web", "side"]
        assert containers[0]["image"] == "j"
        assert "ports" not in containers[0]
        assert fewer["spec"]["replicas"] == 1
        gone = await apply("two", {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {"x": "y"}}})
        assert [c["name"] for c in gone["spec"]["template"]["spec"]["containers"]] == ["web"]

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("manager", "patch", "code"),
    [
        ("", configmap(), 422),
        ("m", {"data": {}}, 400),
        ("m", {**configmap(), "metadata": {"name": "other"}}, 400),
        ("m", {**configmap(), "metadata": {"name": "a", "managedFields": [{}]}}, 400),
        ("m", {**configmap(), "kind": "Secret"}, 400),
        ("m", [], 400),
    ],
)
def test_applies_that_are_none(tmp_path, manager, patch, code):
    async def scenario(client):
        with pytest.raises(StatusError) as refused:
            await applying(client, CONFIG_MAPS)(manager, patch)
        assert refused.value.code == code

    run(tmp_path, scenario)


TREES = st.recursive(st.integers(0, 3), lambda c: st.dictionaries(st.sampled_from("abc"), c, min_size=1, max_size=3), max_leaves=6)


@given(TREES, TREES)
def test_field_sets_are_sets(left, right):
    def meta(path):
        return ListMeta()

    a, b = fieldsets.fields_of({"v": left}, meta), fieldsets.fields_of({"v": right}, meta)
    assert fieldsets.union(a, a) == a == fieldsets.intersection(a, a)
    assert fieldsets.difference(a, a) == {}
    assert set(fieldsets.leaves(fieldsets.difference(a, b))) <= set(fieldsets.leaves(a))
    assert fieldsets.changed({"v": left}, {"v": left}, meta) == {} or left == {}
