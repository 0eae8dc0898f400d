import virtual_time
from atoll.client.resources import CONFIG_MAPS, EVENTS, NAMESPACES, PODS, SECRETS, SERVICE_ACCOUNTS
from atoll.controllers.base import Config
from atoll.controllers.namespace import NamespaceController
from atoll.controllers.serviceaccount import RootCaPublisher, ServiceAccountController
from atoll.errors import StatusError
from controller_harness import cluster


def running(**config):
    resources = (CONFIG_MAPS, EVENTS, PODS, SECRETS, NAMESPACES)
    return cluster(NamespaceController, config=Config(resources=lambda: resources, **config))


async def fill(c):
    await c.create(NAMESPACES, {"metadata": {"name": "shop"}})
    await c.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, "shop")
    await c.create(CONFIG_MAPS, {"metadata": {"name": "kept"}}, "default")
    await c.create(EVENTS, {"metadata": {"name": "e"}}, "shop")
    await c.create(PODS, {"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}}, "shop")


def conditions(c):
    return {entry["type"]: (entry["status"], entry["message"]) for entry in c.client.find(NAMESPACES, "shop")["status"]["conditions"]}


def test_empties_waits_for_pods_and_lets_go():
    async def scenario():
        async with running() as c:
            await fill(c)
            await c.client.delete(NAMESPACES, "shop")
            await c.settle(3)
            assert len(c.client.all(CONFIG_MAPS, "shop")) == 1  # pods go first
            assert conditions(c)["NamespaceContentRemaining"] == ("True", "Some resources are remaining: pods. has 1 resource instances")
            assert conditions(c)["NamespaceDeletionContentFailure"][0] == "False"
            await c.client.delete(PODS, "p", "shop", grace_seconds=0)
            await c.settle(0.1)  # by the pod's own event
            assert c.client.find(NAMESPACES, "shop") is None
            assert c.client.all(EVENTS, "shop") == []
            assert len(c.client.all(CONFIG_MAPS)) == 1

    virtual_time.run(scenario())


def test_names_finalizers_that_hold_it():
    async def scenario():
        async with running() as c:
            await c.create(NAMESPACES, {"metadata": {"name": "shop"}})
            await c.create(SECRETS, {"metadata": {"name": "s", "finalizers": ["example.org/keep"]}}, "shop")
            await c.client.delete(NAMESPACES, "shop")
            await c.settle()
            assert conditions(c)["NamespaceFinalizersRemaining"] == (
                "True",
                "Some content in the namespace has finalizers remaining: example.org/keep in 1 resource instances",
            )
            await c.client.patch(SECRETS, "s", {"metadata": {"finalizers": None}}, "shop")
            await c.settle()
            assert c.client.find(NAMESPACES, "shop") is None

    virtual_time.run(scenario())


def test_failures_are_told_and_tried_again():
    async def scenario():
        async with running() as c:
            await fill(c)
            c.client.fail("deletecollection configmaps *", StatusError(500, "InternalError", "disk on fire"), times=100)
            await c.client.delete(PODS, "p", "shop", grace_seconds=0)
            await c.client.delete(NAMESPACES, "shop")
            await c.settle(1)
            assert "disk on fire" in conditions(c)["NamespaceDeletionContentFailure"][1]
            c.client.failures.clear()
            await c.settle(20)
            assert c.client.find(NAMESPACES, "shop") is None

    virtual_time.run(scenario())


def test_every_namespace_has_its_account_and_root_certificate():
    async def scenario():
        async with cluster(ServiceAccountController, RootCaPublisher, config=Config(root_ca="PEM")) as c:
            await c.create(NAMESPACES, {"metadata": {"name": "shop"}})
            await c.settle()
            for namespace in ("default", "shop"):
                assert c.client.find(SERVICE_ACCOUNTS, "default", namespace)
                assert c.client.find(CONFIG_MAPS, "kube-root-ca.crt", namespace)["data"] == {"ca.crt": "PEM"}
            await c.client.delete(SERVICE_ACCOUNTS, "default", "shop")
            await c.client.patch(CONFIG_MAPS, "kube-root-ca.crt", {"data": {"ca.crt": "forged"}}, "shop")
            await c.settle()
            assert c.client.find(SERVICE_ACCOUNTS, "default", "shop")
            assert c.client.find(CONFIG_MAPS, "kube-root-ca.crt", "shop")["data"] == {"ca.crt": "PEM"}

    virtual_time.run(scenario())
