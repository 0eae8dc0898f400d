"""What kubectl auth asks: may I, who am I, and make these roles so; and the roles a newer release brings along."""

from __future__ import annotations

import asyncio
import json

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl, Pki

from atoll.apiserver import InProcessClient
from atoll.apiserver.call import User
from atoll.apiserver.server import ApiServer
from atoll.client.resources import CLUSTER_ROLES, CONFIG_MAPS, NODES, ROLE_BINDINGS, ROLES, SUBJECT_ACCESS_REVIEWS, Resource
from atoll.errors import StatusError

LOCAL_REVIEWS = Resource("authorization.k8s.io", "v1", "localsubjectaccessreviews", True, "LocalSubjectAccessReview")
RECONCILED = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: default}
rules:
- {apiGroups: [""], resources: [pods], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: readers, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects:
- {kind: User, name: ann, apiGroup: rbac.authorization.k8s.io}
- {kind: ServiceAccount, name: robot, namespace: default}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture(params=KUBECTLS, ids=[str(path) for path in KUBECTLS])
def kubectl(request, cluster):
    return Kubectl(request.param, cluster.admin())


def review(cluster, **spec):
    return cluster.run(cluster.client.create(SUBJECT_ACCESS_REVIEWS, {"spec": spec}))["status"]


def test_kubectl_auth(kubectl, cluster, tmp_path):
    manifest = tmp_path / "rbac.yaml"
    manifest.write_text(RECONCILED)
    kubectl("auth", "reconcile", "-f", str(manifest))
    manifest.write_text(RECONCILED.replace("verbs: [get, list]", "verbs: [watch]").replace("name: ann", "name: ben"))
    kubectl("auth", "reconcile", "-f", str(manifest))
    role = json.loads(kubectl("get", "role", "reader", "-o", "json"))
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    kubectl("auth", "reconcile", "-f", str(manifest), "--remove-extra-permissions", "--remove-extra-subjects")
    role = json.loads(kubectl("get", "role", "reader", "-o", "json"))
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"watch"}
    ben = Kubectl(KUBECTLS[-1], cluster.kubeconfig("ben", "team"))
    listed = ben("auth", "can-i", "--list")
    assert "pods " in listed
    assert "[watch]" in listed
    assert ben("auth", "can-i", "watch", "pods") == "yes\n"
    assert ben.run("auth", "can-i", "get", "/metrics").stdout == "no\n"
    who = ben("auth", "whoami", "-o", "json")
    assert json.loads(who)["status"]["userInfo"]["groups"] == ["team", "system:authenticated"]
    kubectl("delete", "role,rolebinding", "--all")


def test_reviews_give_their_reasons(cluster):
    async def bind():
        rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
        await cluster.client.create(ROLES, {"metadata": {"name": "r"}, "rules": [rule]}, "default")
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
        subjects = [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}]
        await cluster.client.create(ROLE_BINDINGS, {"metadata": {"name": "b"}, "roleRef": reference, "subjects": subjects}, "default")
        await cluster.client.create(NODES, {"metadata": {"name": "n"}})

    cluster.run(bind())
    asked = {"verb": "get", "resource": "pods", "namespace": "default"}
    told = review(cluster, user="system:serviceaccount:default:robot", resourceAttributes=asked)
    assert told == {"allowed": True, "reason": 'RBAC: allowed by RoleBinding "b/default" of Role "r" to ServiceAccount "robot/default"'}
    assert review(cluster, user="nobody", resourceAttributes=asked) == {"allowed": False}
    node = {"user": "system:node:n", "groups": ["system:nodes"]}
    told = review(cluster, **node, resourceAttributes={**asked, "resource": "secrets", "name": "s"})
    assert told == {"allowed": False, "reason": "no relationship found between node 'n' and this object"}
    requirements = [{"key": "spec.nodeName", "operator": "In", "values": ["n"]}]
    listed = {"verb": "list", "resource": "pods"}
    assert review(cluster, **node, resourceAttributes={**listed, "fieldSelector": {"requirements": requirements}})["allowed"]
    assert not review(cluster, **node, resourceAttributes=listed)["allowed"]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"resourceAttributes": {"verb": "get"}}, 'spec.user: Invalid value: "": at least one of user or group must be specified'),
        ({"user": "a"}, "exactly one of nonResourceAttributes or resourceAttributes must be specified"),
        (
            {"user": "a", "resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"verb": "get", "path": "/"}},
            "cannot be specified in combination with resourceAttributes",
        ),
    ],
)
def test_reviews_that_ask_nothing(cluster, spec, why):
    with pytest.raises(StatusError) as told:
        review(cluster, **spec)
    assert told.value.code == 422
    assert why in told.value.message
    spec = {"user": "a", "resourceAttributes": {"verb": "get", "namespace": "other"}}
    with pytest.raises(StatusError, match=r"spec\.resourceAttributes\.namespace: Invalid value"):
        cluster.run(cluster.client.create(LOCAL_REVIEWS, {"spec": spec}, "default"))


def test_a_newer_release_adds_to_the_roles_it_finds(tmp_path):
    async def scenario():
        config = Pki(tmp_path).config()
        server = ApiServer(config)
        await server.start()
        client = InProcessClient(server)
        role = await client.get(CLUSTER_ROLES, "system:node-proxier")
        own = {"apiGroups": ["example.com"], "resources": ["x"], "verbs": ["get"]}
        await client.update(CLUSTER_ROLES, {**role, "rules": [own, *role["rules"][1:]]})
        left = await client.get(CLUSTER_ROLES, "system:coredns")
        mark = {**left["metadata"], "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}
        await client.update(CLUSTER_ROLES, {**left, "metadata": mark, "rules": []})
        await server.close()
        server = ApiServer(config)
        await server.start()
        client = InProcessClient(server)
        found = await client.get(CLUSTER_ROLES, "system:node-proxier")
        assert own in found["rules"]
        assert role["rules"][0] in found["rules"]
        assert not (await client.get(CLUSTER_ROLES, "system:coredns")).get("rules")
        published = await client.get(CONFIG_MAPS, "extension-apiserver-authentication", "kube-system")
        assert published["data"]["client-ca-file"].startswith("-----BEGIN CERTIFICATE")
        scheduler = InProcessClient(server, User("system:kube-scheduler", ("system:authenticated",)))
        await scheduler.get(CONFIG_MAPS, "extension-apiserver-authentication", "kube-system")
        await server.close()

    asyncio.run(scenario())
