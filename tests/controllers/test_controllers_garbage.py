import pytest

import virtual_time
from atoll.client.objects import owner_reference
from atoll.client.resources import CONFIG_MAPS, DEPLOYMENTS, NODES, PODS, REPLICA_SETS
from atoll.controllers.base import Config
from atoll.controllers.deployment.controller import DeploymentController
from atoll.controllers.garbage.controller import GarbageCollector
from atoll.controllers.garbage.decide import Delete, Keep, OwnerState, decide
from atoll.controllers.garbage.graph import Graph
from atoll.controllers.replicaset import ReplicaSetController
from atoll.errors import StatusError
from controller_harness import cluster, template


def running(*more, kubelet=False):
    resources = (CONFIG_MAPS, DEPLOYMENTS, NODES, PODS, REPLICA_SETS)
    return cluster(GarbageCollector, *more, kubelet=kubelet, config=Config(resources=lambda: resources))


async def owned(c, name, *owners, resource=CONFIG_MAPS, block=True):
    references = [{**owner_reference(owner, CONFIG_MAPS), "blockOwnerDeletion": block, "controller": False} for owner in owners]
    return await c.create(resource, {"metadata": {"name": name, "ownerReferences": references}})


def exists(c, name):
    return c.client.find(CONFIG_MAPS, name, "default") is not None


def test_background_deletes_the_whole_tree():
    async def scenario():
        async with running() as c:
            root = await owned(c, "root")
            child = await owned(c, "child", root)
            await owned(c, "grandchild", child)
            await owned(c, "stranger")
            await c.settle()
            await c.client.delete(CONFIG_MAPS, "root", "default")
            await c.settle()
            assert [exists(c, name) for name in ("root", "child", "grandchild", "stranger")] == [False, False, False, True]

    virtual_time.run(scenario())


def test_foreground_deletes_dependents_first():
    async def scenario():
        async with running() as c:
            root = await owned(c, "root")
            await owned(c, "blocking", root)
            await owned(c, "free", root, block=False)
            held = await owned(c, "held", root)
            await c.client.patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": ["example.org/x"]}}, "default")
            await c.settle()
            await c.client.delete(CONFIG_MAPS, "root", "default", propagation="Foreground")
            await c.settle()
            assert [exists(c, name) for name in ("root", "blocking", "held")] == [True, False, True]
            await c.client.patch(CONFIG_MAPS, held["metadata"]["name"], {"metadata": {"finalizers": None}}, "default")
            await c.settle()
            assert [exists(c, name) for name in ("root", "blocking", "held", "free")] == [False] * 4

    virtual_time.run(scenario())


def test_foreground_goes_down_the_tree():
    async def scenario():
        async with running() as c:
            root = await owned(c, "root")
            child = await owned(c, "child", root)
            await owned(c, "grandchild", child)
            await c.settle()
            await c.client.delete(CONFIG_MAPS, "root", "default", propagation="Foreground")
            await c.settle()
            assert not c.client.all(CONFIG_MAPS)
            deleted = [name for verb, _, name in c.client.actions if verb == "patch"]
            assert deleted.index("child") < deleted.index("root")

    virtual_time.run(scenario())


def test_orphan_lets_dependents_live():
    async def scenario():
        async with running() as c:
            root = await owned(c, "root")
            await owned(c, "child", root)
            await c.settle()
            await c.client.delete(CONFIG_MAPS, "root", "default", propagation="Orphan")
            await c.settle()
            assert not exists(c, "root")
            assert not c.client.find(CONFIG_MAPS, "child", "default")["metadata"].get("ownerReferences")

    virtual_time.run(scenario())


def test_one_living_owner_is_enough_and_dead_references_go():
    async def scenario():
        async with running() as c:
            first, second = await owned(c, "first"), await owned(c, "second")
            await owned(c, "child", first, second)
            await c.settle()
            await c.client.delete(CONFIG_MAPS, "first", "default")
            await c.settle()
            references = c.client.find(CONFIG_MAPS, "child", "default")["metadata"]["ownerReferences"]
            assert [reference["name"] for reference in references] == ["second"]

    virtual_time.run(scenario())


def test_an_object_born_with_a_dead_owner_goes():
    async def scenario():
        async with running() as c:
            root = await owned(c, "root")
            await c.client.delete(CONFIG_MAPS, "root", "default")
            await owned(c, "root")  # another of that name
            await owned(c, "late", root)
            await c.settle()
            assert not exists(c, "late")

    virtual_time.run(scenario())


def test_an_owner_in_another_namespace_does_not_count():
    async def scenario():
        async with running() as c:
            foreign = await c.create(CONFIG_MAPS, {"metadata": {"name": "x"}}, "other")
            await owned(c, "child", foreign)
            await c.settle()
            assert not exists(c, "child")

    virtual_time.run(scenario())


def test_owners_of_unknown_kinds_are_left_alone():
    async def scenario():
        async with running() as c:
            reference = {"apiVersion": "example.org/v1", "kind": "Widget", "name": "w", "uid": "u"}
            await c.create(CONFIG_MAPS, {"metadata": {"name": "child", "ownerReferences": [reference]}})
            await c.settle(60)
            assert exists(c, "child")

    virtual_time.run(scenario())


def test_nothing_is_deleted_while_the_server_errs():
    async def scenario():
        async with running() as c:
            root = await owned(c, "root")
            await owned(c, "child", root)
            await c.settle()
            c.client.fail("delete configmaps child", StatusError(500, "InternalError", "no"), times=3)
            await c.client.delete(CONFIG_MAPS, "root", "default")
            await c.settle(60)
            assert not exists(c, "child")

    virtual_time.run(scenario())


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
def test_deleting_a_deployment(propagation):
    async def scenario():
        async with running(DeploymentController, ReplicaSetController, kubelet=True) as c:
            spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template()}
            await c.create(DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": spec})
            await c.settle()
            await c.client.delete(DEPLOYMENTS, "web", "default", propagation=propagation)
            await c.settle()
            assert not c.client.all(DEPLOYMENTS)
            assert (len(c.client.all(REPLICA_SETS)), len(c.pods())) == ((1, 2) if propagation == "Orphan" else (0, 0))

    virtual_time.run(scenario())


# The rule and the graph

OWNERS = [{"uid": "a"}, {"uid": "b"}]
S, A, W = OwnerState.SOLID, OwnerState.ABSENT, OwnerState.WAITING


@pytest.mark.parametrize(
    ("states", "finalizers", "dependents", "expected"),
    [
        ((S, S), (), False, Keep()),
        ((S, A), (), False, Keep([{"uid": "a"}])),
        ((S, W), (), True, Keep([{"uid": "a"}])),
        ((A, A), (), True, Delete("Background")),
        ((W, A), (), True, Delete("Foreground")),
        ((W, A), (), False, Delete("Background")),
        ((A, A), ("orphan",), True, Delete("Orphan")),
        ((A, A), ("foregroundDeletion",), True, Delete("Foreground")),
    ],
)
def test_decide(states, finalizers, dependents, expected):
    found = decide(OWNERS, dict(zip("ab", states, strict=True)), frozenset(finalizers), has_dependents=dependents)
    assert found == expected


def test_two_that_wait_for_each_other_are_freed():
    found = decide([{"uid": "a"}], {"a": W}, frozenset(), has_dependents=True, waiting_dependents=True)
    assert found == Delete("Foreground", release_dependents=True)


def test_graph_links_in_any_order():
    graph = Graph()
    child = {"metadata": {"uid": "c", "name": "c", "namespace": "n", "ownerReferences": [{"uid": "o"}]}}
    owner = {"metadata": {"uid": "o", "name": "o", "namespace": "n"}}
    assert graph.put(CONFIG_MAPS, child) == {"c"}
    graph.put(CONFIG_MAPS, owner)
    assert [node.uid for node in graph.dependents(graph.get("o"))] == ["c"]
    assert graph.remove("o") == {"c"}
    graph.put(CONFIG_MAPS, owner)
    assert [node.uid for node in graph.dependents(graph.get("o"))] == ["c"]
    graph.remove("c")
    assert graph.dependents(graph.get("o")) == []
    assert len(graph) == 1
