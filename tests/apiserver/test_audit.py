"""The audit log as an administrator reads it: what a policy asks for and no more, rotated by its size."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl, Pki

from atoll.apiserver.audit.log import AuditLog
from atoll.apiserver.audit.policy import Policy, Subject
from atoll.apiserver.call import User
from atoll.errors import InvalidInput

RULES = [
    {"level": "None", "users": ["quiet"]},
    {"level": "None", "nonResourceURLs": ["/livez*", "/api*", "/openapi*"]},
    {"level": "RequestResponse", "resources": [{"group": "", "resources": ["configmaps"]}], "omitManagedFields": True},
    {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets"]}], "omitStages": ["RequestReceived"]},
    {"level": "Request", "verbs": ["create"], "resources": [{"group": "", "resources": ["pods", "*/status"], "resourceNames": ["p"]}]},
]


def subject(verb="get", resource="", user="ann", **more):
    return Subject(User(user, ("team",)), verb, resource=resource, **more)


@pytest.mark.parametrize(
    ("asked", "level"),
    [
        (subject(resource="configmaps"), "RequestResponse"),
        (subject(resource="configmaps", user="quiet"), "None"),
        (subject(resource="configmaps", group="apps"), "None"),
        (subject(resource="secrets"), "Metadata"),
        (subject(path="/livez/ping"), "None"),
        (subject("create", "pods", name="p"), "Request"),
        (subject("create", "pods", name="q"), "None"),
        (subject("create", "nodes", subresource="status", name="p"), "Request"),
    ],
)
def test_the_first_rule_that_matches_decides(asked, level):
    assert Policy({"rules": RULES}).decide(asked).level == level


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "needs rules"),
        ({"rules": [{"level": "Loud"}]}, "'Loud' is none of None, Metadata"),
        ({"rules": [{"level": "None", "omitStages": ["Soon"]}]}, "Soon is none of RequestReceived"),
        ({"rules": [{"level": "None", "nonResourceURLs": ["/x"], "namespaces": ["d"]}]}, "cannot apply to both"),
    ],
)
def test_a_policy_that_cannot_be(content, why):
    with pytest.raises(InvalidInput, match=why):
        Policy(content)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    home = tmp_path_factory.mktemp("cluster")
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": RULES}
    (home / "policy.yaml").write_text(json.dumps(policy))
    pki = Pki(home)
    cluster = Cluster(home, pki, replace(pki.config(), audit_policy=home / "policy.yaml", audit_log=home / "audit.log"))
    yield cluster
    cluster.close()


@pytest.fixture
def events(cluster):
    def since():
        async def flush():
            cluster._serving.server._auditor.file.flush()

        cluster.run(flush())
        lines = (cluster.home / "audit.log").read_text().splitlines()
        found, events.seen = [json.loads(line) for line in lines[getattr(events, "seen", 0) :]], len(lines)
        return found

    since()
    return since


def test_what_is_told(cluster, events):
    kubectl = Kubectl(KUBECTLS[-1], cluster.admin())
    kubectl("create", "configmap", "c", "--from-literal=a=b", "--as=ann", "--as-group=system:masters")
    told = [event for event in events() if event["objectRef"]["resource"] == "configmaps"]
    assert [event["stage"] for event in told] == ["RequestReceived", "ResponseComplete"]
    first, last = told
    assert first["auditID"] == last["auditID"]
    assert (last["verb"], last["level"]) == ("create", "RequestResponse")
    assert last["user"]["username"] == "admin"
    assert last["impersonatedUser"]["username"] == "ann"
    assert last["sourceIPs"] == ["127.0.0.1"]
    assert last["userAgent"].startswith("kubectl")
    assert last["objectRef"] == {"resource": "configmaps", "namespace": "default", "name": "c", "apiVersion": "v1"}
    assert last["responseStatus"] == {"metadata": {}, "code": 201}
    assert last["requestObject"]["data"] == {"a": "b"}
    assert last["responseObject"]["metadata"]["uid"]
    assert last["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert last["annotations"]["authorization.k8s.io/reason"] == ""  # a master needs none
    assert last["stageTimestamp"] >= last["requestReceivedTimestamp"]
    assert "requestObject" not in first


def test_secrets_at_the_level_of_metadata(cluster, events):
    kubectl = Kubectl(KUBECTLS[-1], cluster.admin())
    kubectl("create", "secret", "generic", "s", "--from-literal=password=hunter2")
    kubectl("get", "secret", "s", "-o", "yaml")
    told = events()
    assert {event["stage"] for event in told} == {"ResponseComplete"}
    assert {event["verb"] for event in told} == {"create", "get"}
    assert "hunter2" not in json.dumps(told)
    assert "aHVudGVyMg" not in json.dumps(told)


def test_refusals_and_watches(cluster, events):
    nobody = Kubectl(KUBECTLS[-1], cluster.kubeconfig("bob"))
    nobody.fails("get", "configmap", "c")
    refused = [event for event in events() if event["stage"] == "ResponseComplete"][-1]
    assert refused["responseStatus"]["code"] == 403
    assert refused["responseStatus"]["reason"] == "Forbidden"
    assert refused["annotations"]["authorization.k8s.io/decision"] == "forbid"
    Kubectl(KUBECTLS[-1], cluster.admin())("get", "--raw", "/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=1")
    told = [event["stage"] for event in events() if event["verb"] == "watch"]
    assert told == ["RequestReceived", "ResponseStarted", "ResponseComplete"]
    assert Kubectl(KUBECTLS[-1], cluster.kubeconfig("quiet", "system:masters"))("get", "cm", "-A") or True
    assert not events()


def test_rotation(tmp_path):
    async def scenario():
        file = AuditLog(tmp_path / "audit.log", megabytes=1, backups=2)
        for _ in range(5):
            file.write(b"x" * 700_000)
            file.flush()
            await asyncio.sleep(0.002)
        file.close()

    asyncio.run(scenario())
    assert len(list(tmp_path.glob("audit-*.log"))) == 2
    assert (tmp_path / "audit.log").stat().st_size == 700_001
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600
