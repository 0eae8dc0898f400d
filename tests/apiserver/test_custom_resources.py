"""Custom resources in process: served at once, validated, converted, scaled, applied, and gone with their definition."""

from __future__ import annotations

import asyncio
import threading

import pytest

from atoll.apiserver import ApiServer, ApiServerConfig, InProcessClient
from atoll.apiserver.kinds.customresourcedefinition import CustomResourceDefinitionRules
from atoll.client.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, Resource
from atoll.errors import StatusError

CRONTABS = Resource("stable.example.com", "v1", "crontabs", True, "CronTab")
SPEC = {
    "type": "object",
    "required": ["cronSpec"],
    "properties": {
        "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
        "image": {"type": "string", "default": "busybox"},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
        "port": {"x-kubernetes-int-or-string": True},
        "anything": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 5}},
        "colour": {"type": "string", "enum": ["red", "green"]},
        "ports": {
            "type": "array",
            "maxItems": 10,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string", "maxLength": 63}, "number": {"type": "integer", "format": "int32"}},
            },
        },
    },
}
STATUS = {
    "type": "object",
    "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}, "phase": {"type": "string"}},
}


def schema(spec=None, **more):
    return {"type": "object", "properties": {"spec": spec or SPEC, "status": STATUS}, **more}


def version(name="v1", *, storage=True, spec=None, **more):
    return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": schema(spec)}, **more}


def definition(*versions, plural="crontabs", kind="CronTab", group="stable.example.com", scope="Namespaced", **names):
    return {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"plural": plural, "kind": kind, **names},
            "versions": list(versions)
            or [
                version(
                    subresources={
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    selectableFields=[{"jsonPath": ".spec.colour"}],
                )
            ],
        },
    }


def crontab(name="a", **spec):
    return {"metadata": {"name": name}, "spec": {"cronSpec": "* * * * */5", **spec}}


def run(tmp_path, scenario):
    async def whole():
        server = ApiServer(ApiServerConfig(store=tmp_path / "store.db"))
        await server.start()
        try:
            await scenario(InProcessClient(server), server)
        finally:
            await server.close()

    asyncio.run(whole())


async def refused(code, reason, awaitable):
    with pytest.raises(StatusError) as error:
        await awaitable
    assert (error.value.code, error.value.reason) == (code, reason), error.value.message
    return error.value


async def until(found, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not await found():  # noqa: ASYNC110 (the API is what is asked, as clients do)
            await asyncio.sleep(0.005)


def conditions(obj):
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in obj["status"]["conditions"]}


async def gone(client, resource, name, namespace=None):
    try:
        await client.get(resource, name, namespace)
    except StatusError as error:
        return error.code == 404
    return False


def test_served_at_once_and_told_by_conditions(tmp_path):
    async def scenario(client, server):
        made = await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(shortNames=["ct"], categories=["all"]))
        assert made["spec"]["names"]["listKind"] == "CronTabList"
        assert made["status"]["storedVersions"] == ["v1"]
        one = await client.create(CRONTABS, crontab(), "default")
        assert one["spec"] == {"cronSpec": "* * * * */5", "image": "busybox", "replicas": 1}
        assert one["metadata"]["generation"] == 1
        assert "status" not in one
        assert (one["kind"], one["apiVersion"]) == ("CronTab", "stable.example.com/v1")

        async def established():
            told = await client.get(CUSTOM_RESOURCE_DEFINITIONS, "crontabs.stable.example.com")
            return conditions(told) == {"NamesAccepted": ("True", "NoConflicts"), "Established": ("True", "InitialNamesAccepted")}

        await until(established)
        told = await client.get(CUSTOM_RESOURCE_DEFINITIONS, "crontabs.stable.example.com")
        assert told["status"]["acceptedNames"] == {
            "plural": "crontabs",
            "singular": "crontab",
            "kind": "CronTab",
            "listKind": "CronTabList",
            "shortNames": ["ct"],
            "categories": ["all"],
        }
        assert told["metadata"]["generation"] == 1
        found = await client.list(CRONTABS)
        assert found["kind"] == "CronTabList"
        assert [item["metadata"]["name"] for item in found["items"]] == ["a"]

    run(tmp_path, scenario)


def test_names_that_are_taken_are_not_accepted(tmp_path):
    async def scenario(client, server):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
        other = "others.stable.example.com"
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(version(), plural="others", kind="CronTab"))

        async def denied():
            told = conditions(await client.get(CUSTOM_RESOURCE_DEFINITIONS, other))
            return told == {"NamesAccepted": ("False", "ListKindConflict"), "Established": ("False", "NotAccepted")}

        await until(denied)
        others = Resource("stable.example.com", "v1", "others", True, "CronTab")
        await refused(404, "NotFound", client.list(others))
        await client.delete(CUSTOM_RESOURCE_DEFINITIONS, "crontabs.stable.example.com")

        async def granted():
            return conditions(await client.get(CUSTOM_RESOURCE_DEFINITIONS, other)).get("Established", ("", ""))[0] == "True"

        await until(granted)
        assert (await client.list(others))["items"] == []

    run(tmp_path, scenario)


def test_a_definition_is_checked_beside_the_loop(tmp_path, monkeypatch):
    threads = []
    check = CustomResourceDefinitionRules.check

    def watched(self, obj, causes):
        threads.append(threading.current_thread())
        check(self, obj, causes)

    monkeypatch.setattr(CustomResourceDefinitionRules, "check", watched)

    async def scenario(client, server):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
        await client.update(CUSTOM_RESOURCE_DEFINITIONS, definition(shortNames=["ct"]))
        await refused(422, "Invalid", client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(group="other")))

    run(tmp_path, scenario)
    assert len(threads) >= 2
    assert threading.main_thread() not in threads


def test_kept_over_a_restart(tmp_path):
    async def first(client, server):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
        await client.create(CRONTABS, crontab(), "default")

    async def second(client, server):
        assert (await client.get(CRONTABS, "a", "default"))["spec"]["image"] == "busybox"
        await client.create(CRONTABS, crontab("b"), "default")
        await client.delete(CUSTOM_RESOURCE_DEFINITIONS, "crontabs.stable.example.com")
        await until(lambda: gone(client, CUSTOM_RESOURCE_DEFINITIONS, "crontabs.stable.example.com"))

    async def third(client, server):
        await refused(404, "NotFound", client.list(CRONTABS))

    for scenario in (first, second, third):
        run(tmp_path, scenario)


def test_objects_written_before_the_status_could_be_are_there_after_a_crash(tmp_path):
    async def first(client, server):
        for task in [task for task in asyncio.all_tasks() if task.get_name() == "custom resources"]:
            task.cancel()
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
        await client.create(CRONTABS, crontab(), "default")
        assert conditions(await client.get(CUSTOM_RESOURCE_DEFINITIONS, "crontabs.stable.example.com")) == {}

    async def second(client, server):
        assert [item["metadata"]["name"] for item in (await client.list(CRONTABS))["items"]] == ["a"]

    run(tmp_path, first)
    run(tmp_path, second)


def test_deletion_takes_the_objects_and_ends_the_watches(tmp_path):
    async def scenario(client, server):
        name = "crontabs.stable.example.com"
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
        held = crontab("held")
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await client.create(CRONTABS, held, "default")
        await client.create(CRONTABS, crontab("free"), "default")
        version_ = (await client.list(CRONTABS))["metadata"]["resourceVersion"]

        async def follow():
            return [
                (kind, obj["metadata"]["name"]) async for kind, obj in client.watch(CRONTABS, resource_version=version_, bookmarks=False)
            ]

        following = asyncio.create_task(follow())
        await asyncio.sleep(0)
        await client.delete(CUSTOM_RESOURCE_DEFINITIONS, name)
        deleting = await client.get(CUSTOM_RESOURCE_DEFINITIONS, name)
        assert "customresourcecleanup.apiextensions.k8s.io" in deleting["metadata"]["finalizers"]
        await until(lambda: gone(client, CRONTABS, "free", "default"))
        error = await refused(405, "MethodNotAllowed", client.create(CRONTABS, crontab("late"), "default"))
        assert error.message == "create not allowed while custom resource definition is terminating"
        assert conditions(await client.get(CUSTOM_RESOURCE_DEFINITIONS, name))["Terminating"] == ("True", "InstanceDeletionInProgress")
        await client.patch(CRONTABS, "held", {"metadata": {"finalizers": None}}, "default")
        await until(lambda: gone(client, CUSTOM_RESOURCE_DEFINITIONS, name))
        told = await asyncio.wait_for(following, 5)
        assert ("DELETED", "free") in told
        assert told[-1] == ("DELETED", "held")
        await refused(404, "NotFound", client.list(CRONTABS))
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
        assert (await client.list(CRONTABS))["items"] == []

    run(tmp_path, scenario)


WRONG = [
    (
        {"cronSpec": "x"},
        "spec.cronSpec: Invalid value: \"x\": spec.cronSpec in body should match '^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$'",
    ),
    ({"replicas": 11}, "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10"),
    ({"replicas": 0}, "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1"),
    ({"replicas": "2"}, 'spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string"'),
    ({"colour": "blue"}, 'spec.colour: Unsupported value: "blue": supported values: "red", "green"'),
    ({"labels": {"a": "too long"}}, "spec.labels.a: Too long: may not be more than 5 bytes"),
    ({"port": True}, 'spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"'),
    ({"ports": [{}]}, "spec.ports[0].name: Required value"),
    ({"ports": [{"name": "a"}, {"name": "a"}]}, 'spec.ports[1]: Duplicate value: {"name":"a"}'),
    ({"ports": {}}, 'spec.ports: Invalid value: "object": spec.ports in body must be of type array: "object"'),
]


def test_objects_are_validated_in_upstreams_words(tmp_path):
    async def scenario(client, server):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
        for spec, message in WRONG:
            error = await refused(422, "Invalid", client.create(CRONTABS, crontab(**spec), "default"))
            assert error.message == f'CronTab.stable.example.com "a" is invalid: {message}'
        error = await refused(422, "Invalid", client.create(CRONTABS, {"metadata": {"name": "a"}, "spec": {}}, "default"))
        assert error.details["causes"] == [{"reason": "FieldValueRequired", "message": "Required value", "field": "spec.cronSpec"}]
        good = crontab(port="http", labels={"a": "b"}, ports=[{"name": "a", "number": 1}], anything={"x": [{"y": None}]}, unknown=1)
        made = await client.create(CRONTABS, good, "default")
        assert made["spec"]["anything"] == {"x": [{"y": None}]}
        assert "unknown" not in made["spec"]

    run(tmp_path, scenario)


def test_status_scale_and_generation(tmp_path):
    async def scenario(client, server):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
        await client.create(CRONTABS, {**crontab(), "status": {"phase": "made up"}}, "default")
        told = await client.patch(
            CRONTABS, "a", {"status": {"phase": "Ready", "replicas": 1, "selector": "a=b"}}, "default", subresource="status"
        )
        assert told["status"]["phase"] == "Ready"
        assert told["metadata"]["generation"] == 1
        told = await client.patch(CRONTABS, "a", {"status": {"phase": "no"}, "spec": {"colour": "red"}}, "default")
        assert (told["status"]["phase"], told["spec"]["colour"], told["metadata"]["generation"]) == ("Ready", "red", 2)
        told = await client.patch(CRONTABS, "a", {"metadata": {"labels": {"x": "y"}}}, "default")
        assert told["metadata"]["generation"] == 2
        scale = await client.patch(CRONTABS, "a", {"spec": {"replicas": 4}}, "default", subresource="scale")
        assert scale["spec"] == {"replicas": 4}
        assert scale["status"] == {"replicas": 1, "selector": "a=b"}
        told = await client.get(CRONTABS, "a", "default")
        assert (told["spec"]["replicas"], told["metadata"]["generation"]) == (4, 3)
        error = await refused(422, "Invalid", client.patch(CRONTABS, "a", {"status": {"replicas": "x"}}, "default", subresource="status"))
        assert "status.replicas in body must be of type integer" in error.message
        await refused(415, "UnsupportedMediaType", client.patch(CRONTABS, "a", {"spec": {}}, "default", kind="strategic"))
        json_patch = [{"op": "replace", "path": "/spec/replicas", "value": 2}]
        assert (await client.patch(CRONTABS, "a", json_patch, "default", kind="json"))["spec"]["replicas"] == 2
        selected = await client.list(CRONTABS, "default", field_selector="spec.colour=red")
        assert len(selected["items"]) == 1
        assert (await client.list(CRONTABS, "default", field_selector="spec.colour=blue"))["items"] == []
        await refused(400, "BadRequest", client.list(CRONTABS, "default", field_selector="spec.image=busybox"))

    run(tmp_path, scenario)


def test_several_versions_and_a_new_one_to_store(tmp_path):
    old_spec = {"type": "object", "properties": {"cronSpec": {"type": "string"}, "legacy": {"type": "string"}}}
    beta = Resource("stable.example.com", "v1beta1", "crontabs", True, "CronTab")

    async def scenario(client, server):
        first = definition(version("v1beta1", spec=old_spec))
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, first)
        await client.create(beta, crontab(legacy="yes"), "default")
        both = definition(version("v1beta1", spec=old_spec, storage=False), version("v1"))
        told = await client.patch(CUSTOM_RESOURCE_DEFINITIONS, "crontabs.stable.example.com", both)
        assert told["status"]["storedVersions"] == ["v1beta1", "v1"]
        assert told["metadata"]["generation"] == 2
        now = await client.get(CRONTABS, "a", "default")
        assert now["apiVersion"] == "stable.example.com/v1"
        as_beta = await client.get(beta, "a", "default")
        assert (as_beta["apiVersion"], as_beta["spec"]["legacy"]) == ("stable.example.com/v1beta1", "yes")
        made = await client.create(beta, crontab("b", image="i"), "default")
        assert made["apiVersion"] == "stable.example.com/v1beta1"
        assert "image" not in made["spec"]
        events = [event async for event in client.watch(beta, "default", resource_version="", timeout_seconds=0.05, bookmarks=False)]
        assert {obj["apiVersion"] for _, obj in events} == {"stable.example.com/v1beta1"}
        only = definition(version("v1"))
        error = await refused(422, "Invalid", client.patch(CUSTOM_RESOURCE_DEFINITIONS, "crontabs.stable.example.com", only))
        assert 'status.storedVersions[0]: Invalid value: "v1beta1": missing from spec.versions' in error.message
        both["spec"]["versions"][0]["served"] = False
        await client.patch(CUSTOM_RESOURCE_DEFINITIONS, "crontabs.stable.example.com", both)
        await refused(404, "NotFound", client.get(beta, "a", "default"))
        assert len((await client.list(CRONTABS))["items"]) == 2

    async def again(client, server):
        assert [item["apiVersion"] for item in (await client.list(CRONTABS))["items"]] == ["stable.example.com/v1"] * 2
        await client.patch(CRONTABS, "a", {"spec": {"colour": "red"}}, "default")

    run(tmp_path, scenario)
    run(tmp_path, again)


def test_what_was_right_before_a_stricter_schema_can_still_be_changed_elsewhere(tmp_path):
    async def scenario(client, server):
        loose = {**SPEC, "properties": {**SPEC["properties"], "colour": {"type": "string"}}}
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(version(spec=loose)))
        await client.create(CRONTABS, crontab(colour="violet"), "default")
        await client.patch(CUSTOM_RESOURCE_DEFINITIONS, "crontabs.stable.example.com", definition(version()))
        told = await client.patch(CRONTABS, "a", {"spec": {"replicas": 2}}, "default")
        assert told["spec"]["colour"] == "violet"
        await refused(422, "Invalid", client.patch(CRONTABS, "a", {"spec": {"colour": "blue"}}, "default"))

    run(tmp_path, scenario)


def test_apply_merges_list_maps(tmp_path):
    async def scenario(client, server):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition())

        def applied(**spec):
            return {"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"}, "spec": spec}

        first = applied(cronSpec="* * * * *", ports=[{"name": "http", "number": 80}])
        await client.patch(CRONTABS, "a", first, "default", kind="apply", field_manager="one")
        second = applied(ports=[{"name": "tls", "number": 443}])
        told = await client.patch(CRONTABS, "a", second, "default", kind="apply", field_manager="two")
        assert [port["name"] for port in told["spec"]["ports"]] == ["http", "tls"]
        assert told["spec"]["image"] == "busybox"
        owned = {entry["manager"]: entry["fieldsV1"] for entry in told["metadata"]["managedFields"]}
        assert 'k:{"name":"tls"}' in owned["two"]["f:spec"]["f:ports"]
        assert "f:image" not in owned["one"]["f:spec"]
        clash = applied(cronSpec="1 * * * *")
        error = await refused(409, "Conflict", client.patch(CRONTABS, "a", clash, "default", kind="apply", field_manager="two"))
        assert ".spec.cronSpec" in error.message
        again = await client.patch(CRONTABS, "a", first, "default", kind="apply", field_manager="one")
        assert again["metadata"]["resourceVersion"] == told["metadata"]["resourceVersion"]

    run(tmp_path, scenario)


def test_cluster_scope_and_dry_run(tmp_path):
    async def scenario(client, server):
        things = Resource("example.org", "v1", "things", False, "Thing")
        preserving = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        raw = version()
        raw["schema"]["openAPIV3Schema"] = preserving
        await client.create(
            CUSTOM_RESOURCE_DEFINITIONS, definition(raw, plural="things", kind="Thing", group="example.org", scope="Cluster")
        )
        made = await client.create(things, {"metadata": {"name": "x"}, "whatever": {"a": [1, None]}})
        assert made["whatever"] == {"a": [1, None]}
        assert "namespace" not in made["metadata"]
        await client.create(NAMESPACES, {"metadata": {"name": "n"}})
        wrong = {"metadata": {"name": "y", "labels": {"a": 1}}}
        error = await refused(400, "BadRequest", client.create(things, wrong))
        assert "cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string" in error.message

    run(tmp_path, scenario)
