import virtual_time
from atoll.client.objects import labels_of
from atoll.client.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES
from atoll.controllers.endpoints import slices
from atoll.controllers.endpoints.controller import EndpointsController, EndpointSliceController
from controller_harness import cluster


def service(name="web", **spec):
    return {
        "metadata": {"name": name, "labels": {"team": "a"}},
        "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec},
    }


def pod(name, node="n1", **spec):
    return {"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"nodeName": node, "containers": [], **spec}}


def running():
    return cluster(EndpointsController, EndpointSliceController)


async def add_pod(c, name, ip, *, ready=True, **spec):
    return await c.set_pod(await c.create(PODS, pod(name, **spec)), ready=ready, ip=ip)


def endpoints_of(c):
    return [endpoint for each in c.client.all(ENDPOINT_SLICES) for endpoint in each["endpoints"]]


def test_ready_and_unready_pods():
    async def scenario():
        async with running() as c:
            await c.create(NODES, {"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}}})
            await add_pod(c, "a", "10.0.0.1")
            await add_pod(c, "b", "10.0.0.2", ready=False)
            await c.create(PODS, pod("no-address"))
            await c.create(SERVICES, service())
            await c.settle()
            (made,) = c.client.all(ENDPOINT_SLICES)
            assert made["metadata"]["labels"] == {
                "team": "a",
                "kubernetes.io/service-name": "web",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            }
            assert made["metadata"]["ownerReferences"][0]["kind"] == "Service"
            assert (made["addressType"], made["ports"]) == ("IPv4", [{"name": "", "protocol": "TCP", "port": 8080}])
            first, second = made["endpoints"]
            assert first["conditions"] == {"ready": True, "serving": True, "terminating": False}
            assert (first["addresses"], first["nodeName"], first["zone"]) == (["10.0.0.1"], "n1", "z1")
            assert second["conditions"] == {"ready": False, "serving": False, "terminating": False}
            (subset,) = c.client.find(ENDPOINTS, "web", "default")["subsets"]
            assert [address["ip"] for address in subset["addresses"]] == ["10.0.0.1"]
            assert [address["ip"] for address in subset["notReadyAddresses"]] == ["10.0.0.2"]
            assert subset["ports"] == [{"port": 8080, "protocol": "TCP"}]

    virtual_time.run(scenario())


def test_a_terminating_pod_serves_but_is_not_ready_then_goes():
    async def scenario():
        async with running() as c:
            await add_pod(c, "a", "10.0.0.1")
            await c.create(SERVICES, service())
            await c.settle()
            await c.client.delete(PODS, "a", "default")
            await c.settle()
            assert endpoints_of(c)[0]["conditions"] == {"ready": False, "serving": True, "terminating": True}
            assert "subsets" not in c.client.find(ENDPOINTS, "web", "default")
            await c.client.delete(PODS, "a", "default", grace_seconds=0)
            await c.settle()
            assert len(c.client.all(ENDPOINT_SLICES)) == 1  # the placeholder
            assert endpoints_of(c) == []

    virtual_time.run(scenario())


def test_named_ports_resolve_by_pod():
    async def scenario():
        async with running() as c:
            old = [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]
            new = [{"name": "c", "ports": [{"name": "http", "containerPort": 9090}]}]
            await add_pod(c, "a", "10.0.0.1", containers=old)
            await add_pod(c, "b", "10.0.0.2", containers=new)
            await c.create(SERVICES, service(ports=[{"name": "web", "port": 80, "targetPort": "http"}]))
            await c.settle()
            found = {each["ports"][0]["port"]: [e["addresses"][0] for e in each["endpoints"]] for each in c.client.all(ENDPOINT_SLICES)}
            assert found == {8080: ["10.0.0.1"], 9090: ["10.0.0.2"]}
            assert len(c.client.find(ENDPOINTS, "web", "default")["subsets"]) == 2

    virtual_time.run(scenario())


def test_headless_publishes_unready_and_host_names():
    async def scenario():
        async with running() as c:
            await add_pod(c, "db-0", "10.0.0.1", ready=False, hostname="db-0", subdomain="db")
            await c.create(SERVICES, service("db", clusterIP="None", publishNotReadyAddresses=True, ports=[]))
            await c.settle()
            (made,) = c.client.all(ENDPOINT_SLICES)
            assert labels_of(made)["service.kubernetes.io/headless"] == ""
            assert made["endpoints"][0]["hostname"] == "db-0"
            assert made["endpoints"][0]["conditions"]["ready"] is True
            (subset,) = c.client.find(ENDPOINTS, "db", "default")["subsets"]
            assert subset["addresses"][0]["hostname"] == "db-0"

    virtual_time.run(scenario())


def test_services_without_selector_are_the_users():
    async def scenario():
        async with running() as c:
            await c.create(SERVICES, service(selector=None))
            await c.create(SERVICES, service("ext", type="ExternalName", externalName="example.org"))
            await c.settle()
            assert c.client.all(ENDPOINT_SLICES) == c.client.all(ENDPOINTS) == []

    virtual_time.run(scenario())


def test_a_pod_that_leaves_the_selector_leaves_the_slice():
    async def scenario():
        async with running() as c:
            await add_pod(c, "a", "10.0.0.1")
            await c.create(SERVICES, service())
            await c.settle()
            await c.client.patch(PODS, "a", {"metadata": {"labels": {"app": "other"}}}, "default")
            await c.settle()
            assert endpoints_of(c) == []

    virtual_time.run(scenario())


def test_irrelevant_pod_writes_cause_none():
    async def scenario():
        async with running() as c:
            made = await add_pod(c, "a", "10.0.0.1")
            await c.create(SERVICES, service())
            await c.settle()
            before = len(c.client.actions)
            await c.set_pod(made, restarts=3, ip="10.0.0.1")
            await c.settle(600)
            assert len(c.client.actions) == before + 1

    virtual_time.run(scenario())


def test_a_deleted_slice_is_made_again_and_endpoints_go_with_the_service():
    async def scenario():
        async with running() as c:
            await add_pod(c, "a", "10.0.0.1")
            await c.create(SERVICES, service())
            await c.settle()
            await c.client.delete(ENDPOINT_SLICES, c.client.all(ENDPOINT_SLICES)[0]["metadata"]["name"], "default")
            await c.settle()
            assert len(endpoints_of(c)) == 1
            await c.client.delete(SERVICES, "web", "default")
            await c.settle()
            assert c.client.all(ENDPOINTS) == []

    virtual_time.run(scenario())


def backend(number):
    return {
        "metadata": {"name": f"p{number}", "namespace": "default", "uid": f"u{number}"},
        "spec": {"nodeName": "n1"},
        "status": {
            "phase": "Running",
            "podIP": f"10.1.{number // 250}.{number % 250}",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def named(made, name):
    return {**made, "metadata": {**made["metadata"], "name": name}}


def test_plan_splits_at_a_hundred_and_touches_little():
    svc = service()
    svc["metadata"] |= {"namespace": "default", "uid": "s"}
    pods = [backend(number) for number in range(250)]
    first = slices.plan(svc, pods, {}, [], None)
    assert [len(made["endpoints"]) for made in first.create] == [100, 100, 50]
    existing = [named(made, f"web-{number}") for number, made in enumerate(first.create)]
    assert slices.plan(svc, pods, {}, existing, None) == slices.Changes()
    fewer = slices.plan(svc, [*pods[:5], *pods[6:], backend(300)], {}, existing, None)
    assert [made["metadata"]["name"] for made in fewer.update] == ["web-0"]
    assert len(fewer.update[0]["endpoints"]) == 100
    assert not fewer.create
    assert not fewer.delete
    none = slices.plan(svc, [], {}, existing, None)
    assert (len(none.delete), len(none.update), none.update[0]["endpoints"]) == (2, 1, [])
