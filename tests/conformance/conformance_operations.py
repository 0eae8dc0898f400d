"""What the tests named "should support ... API operations" do to any resource: discovery, then every verb it has, seen by a watch."""

from __future__ import annotations

from conformance_api import until

LABEL = "conformance-operations"


def check_discovery(api, resource):
    group = f"{resource.group}/{resource.version}"
    if resource.group:
        entry = {"groupVersion": group, "version": resource.version}
        found = next(each for each in api.get("/apis")["groups"] if each["name"] == resource.group)
        assert entry in found["versions"]
        assert entry in api.get(f"/apis/{resource.group}")["versions"]
    path = f"/apis/{group}" if resource.group else f"/api/{resource.version}"
    names = [each["name"] for each in api.get(path)["resources"]]
    assert resource.plural in names
    return {name.partition("/")[2] for name in names if name.startswith(f"{resource.plural}/")}


def check_operations(door, *bodies, change=None):
    """`bodies` are three objects that differ in name, `change` a merge patch of their spec. They are made, changed and deleted."""
    subresources = check_discovery(door.api, door.resource)
    selector = {"labelSelector": f"{LABEL}={bodies[0]['metadata']['name']}"}
    for body in bodies:
        body["metadata"].setdefault("labels", {})[LABEL] = bodies[0]["metadata"]["name"]
    made = [door.create(body) for body in bodies]
    name = made[0]["metadata"]["name"]
    assert door.get(name)["metadata"]["uid"] == made[0]["metadata"]["uid"]
    listed = door.list(**selector)
    assert sorted(item["metadata"]["name"] for item in listed["items"]) == sorted(item["metadata"]["name"] for item in made)
    if door.namespace:
        everywhere = door.api.get(door.resource.path(), **selector)["items"]
        assert len(everywhere) == len(made)
    with door.watch(resourceVersion=listed["metadata"]["resourceVersion"], **selector) as watch:

        def annotated(obj):
            return obj["metadata"].get("annotations") or {}

        for number, kind in enumerate(("merge", "strategic")):
            patched = door.patch(name, {"metadata": {"annotations": {"patched": str(number)}}}, kind)
            assert annotated(patched)["patched"] == str(number)
            watch.expect("MODIFIED", lambda obj, number=number: annotated(obj).get("patched") == str(number))
        if change is not None:
            assert door.patch(name, {"spec": change})["metadata"]["generation"] == made[0]["metadata"]["generation"] + 1
        updated = door.change(name, lambda obj: obj["metadata"].setdefault("annotations", {}).update(updated="true"))
        assert annotated(updated)["updated"] == "true"
        watch.expect("MODIFIED", lambda obj: annotated(obj).get("updated") == "true")
        if "status" in subresources:
            through = door.patch(name, {"metadata": {"annotations": {"patchedstatus": "true"}}}, sub="status")
            assert annotated(through)["patchedstatus"] == "true"
            through = door.change(name, lambda obj: obj["metadata"]["annotations"].update(updatedstatus="true"), "status")
            assert annotated(through)["updatedstatus"] == "true"
            assert door.get(name, "status")["metadata"]["uid"] == made[0]["metadata"]["uid"]
            watch.expect("MODIFIED", lambda obj: annotated(obj).get("updatedstatus") == "true")
        door.delete(name)
        watch.expect("DELETED", lambda obj: obj["metadata"]["name"] == name)
    door.until_gone(name)
    assert len(door.items(**selector)) == len(made) - 1
    door.delete_all(**selector)
    until(lambda: not door.items(**selector), "the collection is gone")
