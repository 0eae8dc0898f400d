"""The in-process client: every verb and subresource, and the refusals with upstream's codes."""

from __future__ import annotations

import asyncio
import os

import pytest

from atoll.apiserver import ApiServer, ApiServerConfig, InProcessClient
from atoll.apiserver.call import User
from atoll.client.protocol import Client
from atoll.client.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STORAGE_CLASSES,
    Resource,
)
from atoll.errors import InUse, StatusError


def run(tmp_path, scenario):
    """Run `scenario(client, server)` against a server of its own, with the default service account there."""

    async def whole():
        server = ApiServer(ApiServerConfig(store=tmp_path / "store.db"))
        await server.start()
        try:
            client: Client = InProcessClient(server)
            await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, "default")
            await scenario(client, server)
        finally:
            await server.close()

    asyncio.run(whole())


def configmap(name="a", **data):
    return {"metadata": {"name": name}, "data": data}


def pod(name="p", **spec):
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


async def refused(code, reason, awaitable):
    with pytest.raises(StatusError) as error:
        await awaitable
    assert (error.value.code, error.value.reason) == (code, reason), error.value.message
    return error.value


def test_the_life_of_an_object(tmp_path):
    async def scenario(client, server):
        made = await client.create(CONFIG_MAPS, configmap(x="1"), "default")
        assert made["metadata"]["uid"]
        await refused(409, "AlreadyExists", client.create(CONFIG_MAPS, configmap(), "default"))
        changed = await client.update(CONFIG_MAPS, {**made, "data": {"x": "2"}})
        assert int(changed["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
        conflict = await refused(409, "Conflict", client.update(CONFIG_MAPS, {**made, "data": {"x": "3"}}))
        assert conflict.message == (
            'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
            "please apply your changes to the latest version and try again"
        )
        same = await client.patch(CONFIG_MAPS, "a", {"data": {"x": "2"}}, "default")
        assert same["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]
        await refused(409, "Conflict", client.patch(CONFIG_MAPS, "a", {"metadata": {"resourceVersion": "1"}}, "default"))
        await refused(409, "Conflict", client.delete(CONFIG_MAPS, "a", "default", uid="other"))
        gone = await client.delete(CONFIG_MAPS, "a", "default")
        assert gone["status"] == "Success"
        await refused(404, "NotFound", client.get(CONFIG_MAPS, "a", "default"))
        missing = await refused(404, "NotFound", client.get(Resource("no", "v1", "things", True, "Thing"), "a", "default"))
        assert missing.message == "the server could not find the requested resource"

    run(tmp_path, scenario)


def test_generated_names(tmp_path):
    async def scenario(client, server):
        made = [await client.create(CONFIG_MAPS, {"metadata": {"generateName": "web-"}}, "default") for _ in range(3)]
        names = {obj["metadata"]["name"] for obj in made}
        assert len(names) == 3
        assert all(name.startswith("web-") and len(name) == 9 for name in names)

    run(tmp_path, scenario)


def test_lists_in_pages_hold_at_their_revision(tmp_path):
    async def scenario(client, server):
        for name in "abcdef":
            await client.create(CONFIG_MAPS, configmap(name, v="1"), "default")
        first = await client.list(CONFIG_MAPS, "default", limit=2)
        await client.delete(CONFIG_MAPS, "c", "default")
        await client.patch(CONFIG_MAPS, "d", {"data": {"v": "2"}}, "default")
        await client.create(CONFIG_MAPS, configmap("cc"), "default")
        names, page = [obj["metadata"]["name"] for obj in first["items"]], first
        while page["metadata"].get("continue"):
            page = await client.list(CONFIG_MAPS, "default", limit=2, continue_=page["metadata"]["continue"])
            assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
            names += [obj["metadata"]["name"] for obj in page["items"]]
            assert all(obj["data"]["v"] == "1" for obj in page["items"])
        assert names == list("abcdef")
        token = first["metadata"]["continue"]
        await refused(400, "BadRequest", client.list(CONFIG_MAPS, "default", continue_=token[:-4] + "AAAA"))
        await refused(400, "BadRequest", client.list(PODS, "default", continue_=token))
        await refused(400, "BadRequest", client.list(CONFIG_MAPS, "default", limit=-1))
        await refused(400, "BadRequest", client.list(CONFIG_MAPS, "default", field_selector="data.x=1"))
        await refused(504, "Timeout", client.list(CONFIG_MAPS, resource_version="99999"))

    run(tmp_path, scenario)


def test_pods_are_given_an_account_tolerations_and_a_priority(tmp_path):
    async def scenario(client, server):
        made = await client.create(PODS, pod(), "default")
        spec = made["spec"]
        assert spec["serviceAccountName"] == "default"
        assert spec["priority"] == 0
        assert {t["key"] for t in spec["tolerations"]} == {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
        assert spec["containers"][0]["volumeMounts"][0]["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
        assert made["status"]["phase"] == "Pending"
        await refused(403, "Forbidden", client.create(PODS, pod("q", serviceAccountName="none"), "default"))
        await refused(403, "Forbidden", client.create(PODS, pod("q", priorityClassName="none"), "default"))
        await refused(404, "NotFound", client.create(PODS, pod("q"), "no-such-namespace"))

    run(tmp_path, scenario)


def test_binding_and_graceful_deletion(tmp_path):
    async def scenario(client, server):
        await client.create(NODES, {"metadata": {"name": "n"}})
        await client.create(PODS, pod(), "default")
        binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}
        await client.create(PODS, binding, "default", name="p", subresource="binding")
        bound = await client.get(PODS, "p", "default")
        assert bound["spec"]["nodeName"] == "n"
        assert any(c["type"] == "PodScheduled" and c["status"] == "True" for c in bound["status"]["conditions"])
        taken = await refused(409, "Conflict", client.create(PODS, binding, "default", name="p", subresource="binding"))
        assert 'already assigned to node "n"' in taken.message
        ending = await client.delete(PODS, "p", "default")
        assert ending["metadata"]["deletionGracePeriodSeconds"] == 30
        sooner = await client.delete(PODS, "p", "default", grace_seconds=5)
        assert sooner["metadata"]["deletionGracePeriodSeconds"] == 5
        longer = await client.delete(PODS, "p", "default", grace_seconds=60)
        assert longer["metadata"]["deletionGracePeriodSeconds"] == 5
        await client.delete(PODS, "p", "default", grace_seconds=0)
        await refused(404, "NotFound", client.get(PODS, "p", "default"))
        await client.create(PODS, pod("unbound"), "default")
        await client.delete(PODS, "unbound", "default")
        await refused(404, "NotFound", client.get(PODS, "unbound", "default"))

    run(tmp_path, scenario)


def test_finalizers_and_propagation(tmp_path):
    async def scenario(client, server):
        held = configmap()
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await client.create(CONFIG_MAPS, held, "default")
        ending = await client.delete(CONFIG_MAPS, "a", "default", propagation="Foreground")
        assert ending["metadata"]["finalizers"] == ["example.com/hold", "foregroundDeletion"]
        assert ending["metadata"]["deletionTimestamp"]
        await client.patch(CONFIG_MAPS, "a", {"metadata": {"finalizers": ["foregroundDeletion"]}}, "default")
        await client.patch(CONFIG_MAPS, "a", {"metadata": {"finalizers": None}}, "default")
        await refused(404, "NotFound", client.get(CONFIG_MAPS, "a", "default"))

    run(tmp_path, scenario)


def test_a_namespace_goes_when_it_is_finalized(tmp_path):
    async def scenario(client, server):
        made = await client.create(NAMESPACES, {"metadata": {"name": "n"}})
        assert made["spec"]["finalizers"] == ["kubernetes"]
        ending = await client.delete(NAMESPACES, "n")
        assert ending["status"]["phase"] == "Terminating"
        await refused(403, "Forbidden", client.create(CONFIG_MAPS, configmap(), "n"))
        await client.update(NAMESPACES, {**ending, "spec": {"finalizers": []}}, subresource="finalize")
        await refused(404, "NotFound", client.get(NAMESPACES, "n"))
        await refused(403, "Forbidden", client.delete(NAMESPACES, "default"))

    run(tmp_path, scenario)


def test_status_and_spec_have_doors_of_their_own(tmp_path):
    async def scenario(client, server):
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        deployment = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
        made = await client.create(DEPLOYMENTS, {**deployment, "status": {"replicas": 7}}, "default")
        assert made["status"].get("replicas", 0) == 0
        assert made["metadata"]["generation"] == 1
        through_status = {**made, "status": {"replicas": 3}, "spec": {**made["spec"], "replicas": 9}}
        updated = await client.update(DEPLOYMENTS, through_status, subresource="status")
        assert (updated["status"]["replicas"], updated["spec"]["replicas"]) == (3, 1)
        assert updated["metadata"]["generation"] == 1
        scaled = await client.patch(DEPLOYMENTS, "d", {"spec": {"replicas": 4}}, "default", subresource="scale")
        assert scaled["kind"] == "Scale"
        found = await client.get(DEPLOYMENTS, "d", "default")
        assert (found["spec"]["replicas"], found["metadata"]["generation"], found["status"]["replicas"]) == (4, 2, 3)
        immutable = {**found, "spec": {**found["spec"], "selector": {"matchLabels": {"a": "c"}}}}
        await refused(422, "Invalid", client.update(DEPLOYMENTS, immutable))

    run(tmp_path, scenario)


def test_services_get_addresses_of_their_own(tmp_path):
    async def scenario(client, server):
        ports = [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]
        made = await asyncio.gather(
            *(
                client.create(SERVICES, {"metadata": {"name": f"s{i}"}, "spec": {"type": "NodePort", "ports": ports}}, "default")
                for i in range(20)
            )
        )
        assert len({service["spec"]["clusterIP"] for service in made}) == 20
        assert len({port["nodePort"] for service in made for port in service["spec"]["ports"]}) == 40
        taken = {"metadata": {"name": "t"}, "spec": {"clusterIP": made[0]["spec"]["clusterIP"], "ports": [{"port": 1}]}}
        error = await refused(422, "Invalid", client.create(SERVICES, taken, "default"))
        assert "provided IP is already allocated" in error.message
        outside = {"metadata": {"name": "t"}, "spec": {"clusterIP": "10.200.0.1", "ports": [{"port": 1}]}}
        await refused(422, "Invalid", client.create(SERVICES, outside, "default"))
        number = made[0]["spec"]["ports"][0]["nodePort"]
        clash = {"metadata": {"name": "t"}, "spec": {"type": "NodePort", "ports": [{"port": 1, "nodePort": number}]}}
        await refused(422, "Invalid", client.create(SERVICES, clash, "default"))
        headless = await client.create(
            SERVICES, {"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}, "default"
        )
        assert headless["spec"]["clusterIP"] == "None"

    run(tmp_path, scenario)


def test_claims_get_the_default_class(tmp_path):
    async def scenario(client, server):
        mark = {"storageclass.kubernetes.io/is-default-class": "true"}
        await client.create(STORAGE_CLASSES, {"metadata": {"name": "standard", "annotations": mark}, "provisioner": "x"})
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        made = await client.create(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "c"}, "spec": spec}, "default")
        assert made["spec"]["storageClassName"] == "standard"
        none = await client.create(
            PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "d"}, "spec": {**spec, "storageClassName": ""}}, "default"
        )
        assert none["spec"]["storageClassName"] == ""

    run(tmp_path, scenario)


def test_evictions_keep_to_the_budget(tmp_path):
    async def scenario(client, server):
        await client.create(PODS, pod(), "default")
        await client.patch(PODS, "p", {"status": {"phase": "Running"}}, "default", subresource="status")
        budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "p"}}}}
        made = await client.create(POD_DISRUPTION_BUDGETS, budget, "default")
        allowed = {"observedGeneration": made["metadata"]["generation"], "disruptionsAllowed": 0, "desiredHealthy": 1, "currentHealthy": 1}
        await client.patch(POD_DISRUPTION_BUDGETS, "b", {"status": allowed}, "default", subresource="status")
        eviction = {"metadata": {"name": "p"}}
        await refused(429, "TooManyRequests", client.create(PODS, eviction, "default", name="p", subresource="eviction"))
        await client.patch(POD_DISRUPTION_BUDGETS, "b", {"status": {"disruptionsAllowed": 1}}, "default", subresource="status")
        await client.create(PODS, eviction, "default", name="p", subresource="eviction")
        await refused(404, "NotFound", client.get(PODS, "p", "default"))

    run(tmp_path, scenario)


def test_events_are_one_object_under_two_versions(tmp_path):
    async def scenario(client, server):
        core = Resource("", "v1", "events", True, "Event")
        new = Resource("events.k8s.io", "v1", "events", True, "Event")
        event = {
            "metadata": {"name": "e"},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
            "message": "m",
            "reason": "R",
        }
        await client.create(core, event, "default")
        seen = await client.get(new, "e", "default")
        assert (seen["note"], seen["regarding"]["name"], seen["apiVersion"]) == ("m", "p", "events.k8s.io/v1")
        assert (await client.list(new, "default"))["items"][0]["note"] == "m"

    run(tmp_path, scenario)


def test_a_hundred_writers_lose_no_update(tmp_path):
    async def scenario(client, server):
        await client.create(CONFIG_MAPS, configmap(n="0"), "default")

        async def increment():
            for _ in range(5):
                while True:
                    seen = await client.get(CONFIG_MAPS, "a", "default")
                    try:
                        await client.update(CONFIG_MAPS, {**seen, "data": {"n": str(int(seen["data"]["n"]) + 1)}})
                        break
                    except StatusError as error:
                        if error.reason != "Conflict":
                            raise
                        await asyncio.sleep(0.001)

        async with asyncio.timeout(60):
            await asyncio.gather(*(increment() for _ in range(20)))
        assert (await client.get(CONFIG_MAPS, "a", "default"))["data"]["n"] == "100"

    run(tmp_path, scenario)


def test_changes_that_lose_to_a_deletion_find_nothing(tmp_path):
    async def scenario(client, server):
        for _ in range(20):
            await client.create(CONFIG_MAPS, configmap("a"), "default")
            changes = [client.patch(CONFIG_MAPS, "a", {"data": {str(n): "x"}}, "default") for n in range(3)]
            outcomes = await asyncio.gather(client.delete(CONFIG_MAPS, "a", "default"), *changes, return_exceptions=True)
            assert all(not isinstance(outcome, Exception) or outcome.code == 404 for outcome in outcomes), outcomes

    run(tmp_path, scenario)


def test_users_are_held_to_their_roles(tmp_path):
    async def scenario(client, server):
        await client.create(CONFIG_MAPS, configmap(), "default")
        nobody = InProcessClient(server, User("nobody", ("system:authenticated",)))
        error = await refused(403, "Forbidden", nobody.get(CONFIG_MAPS, "a", "default"))
        assert error.message == (
            'configmaps "a" is forbidden: User "nobody" cannot get resource "configmaps" in API group "" in the namespace "default"'
        )
        node = InProcessClient(server, User("system:node:n", ("system:nodes", "system:authenticated")))
        assert (await node.list(PODS, field_selector="spec.nodeName=n"))["items"] == []

    run(tmp_path, scenario)


def test_nobody_grants_what_they_do_not_hold(tmp_path):
    async def scenario(client, server):
        may_write_roles = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["create", "update"]}
        may_read_pods = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
        await client.create(CLUSTER_ROLES, {"metadata": {"name": "clerk"}, "rules": [may_write_roles, may_read_pods]})
        subjects = [{"kind": "User", "name": "clerk", "apiGroup": "rbac.authorization.k8s.io"}]
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "clerk"}
        await client.create(CLUSTER_ROLE_BINDINGS, {"metadata": {"name": "clerk"}, "subjects": subjects, "roleRef": reference})
        clerk = InProcessClient(server, User("clerk", ("system:authenticated",)))
        await clerk.create(CLUSTER_ROLES, {"metadata": {"name": "fine"}, "rules": [{**may_read_pods, "verbs": ["get"]}]})
        for rule in (
            {**may_read_pods, "verbs": ["delete"]},
            {**may_read_pods, "verbs": ["*"]},
            {**may_read_pods, "resources": ["*"]},
            {**may_read_pods, "resources": ["pods", "secrets"]},
            {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
        ):
            error = await refused(403, "Forbidden", clerk.create(CLUSTER_ROLES, {"metadata": {"name": "x"}, "rules": [rule]}))
            assert "not currently held" in error.message
        admin = {**reference, "name": "cluster-admin"}
        binding = {"metadata": {"name": "x"}, "subjects": subjects, "roleRef": admin}
        await refused(403, "Forbidden", clerk.create(CLUSTER_ROLE_BINDINGS, binding))

    run(tmp_path, scenario)


def test_one_server_a_store(tmp_path):
    async def scenario(client, server):
        second = ApiServer(server.config)
        with pytest.raises(InUse, match=f"process {os.getpid()}"):
            await second.start()

    run(tmp_path, scenario)


def test_everything_is_there_after_a_restart(tmp_path):
    versions = []

    async def first(client, server):
        versions.append((await client.create(CONFIG_MAPS, configmap(x="1"), "default"))["metadata"]["resourceVersion"])

    async def second():
        server = ApiServer(ApiServerConfig(store=tmp_path / "store.db"))
        await server.start()
        client = InProcessClient(server)
        found = await client.get(CONFIG_MAPS, "a", "default")
        assert found["metadata"]["resourceVersion"] == versions[0]
        events = [event async for event in client.watch(CONFIG_MAPS, resource_version=str(int(versions[0]) - 1), timeout_seconds=0.05)]
        assert events[0][0] == "ADDED"
        assert events[0][1] == found
        await server.close()

    run(tmp_path, first)
    asyncio.run(second())
