"""APIServices: a group that a server of its own serves, used by kubectl through this one."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import socket
import ssl
import subprocess
from urllib.request import Request, urlopen

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl, Pki
from extension_server import API, GROUP, VERSION, ExtensionServer

from atoll.apiserver.aggregation.remote import identity
from atoll.apiserver.call import User
from atoll.client.resources import ENDPOINT_SLICES, NAMESPACES, SERVICES, Resource
from atoll.cluster.resources import aggregated_resources, collected_resources
from atoll.controllers.base import Config
from atoll.controllers.namespace import NamespaceController
from atoll.controllers.registry import run_all
from atoll.errors import StatusError
from own_address import own_address
from tls_files import Authority

API_SERVICES = Resource("apiregistration.k8s.io", "v1", "apiservices", False, "APIService")
NAME = f"{VERSION}.{GROUP}"
BASE = f"/apis/{API}"
FLUNDER = {"apiVersion": API, "kind": "Flunder", "metadata": {"name": "f", "namespace": "default"}}


@pytest.fixture(scope="module")
def proxies(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("proxies"), "front-proxy-ca")


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("serving")).sign("extension", "api.wardle.svc")


@pytest.fixture(scope="module")
def extension(proxies, serving):
    with own_address() as address:
        server = ExtensionServer(serving, proxies.path, address)
        yield server
        server.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, proxies):
    home = tmp_path_factory.mktemp("cluster")
    client = proxies.sign("aggregator", "front-proxy-client", client=True)
    pki = Pki(home)
    config = dataclasses.replace(
        pki.config(),
        front_proxy_ca=proxies.path,
        front_proxy_names=("front-proxy-client",),
        proxy_client=(client / "cert.pem", client / "key.pem"),
    )
    cluster = Cluster(home, pki, config)
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def kubectl(cluster):
    return Kubectl(KUBECTLS[-1], cluster.admin())


@pytest.fixture(scope="module")
def behind(cluster, extension, serving):
    """The service of the extension server, and the APIService that names it, available."""
    port = extension.server_port
    bundle = base64.b64encode((serving / "ca.pem").read_bytes()).decode()

    async def fill():
        client = cluster.client
        await client.create(NAMESPACES, {"metadata": {"name": "wardle"}})
        ports = [{"name": "https", "port": 443, "targetPort": port}]
        await client.create(SERVICES, {"metadata": {"name": "api"}, "spec": {"ports": ports}}, "wardle")
        await client.create(ENDPOINT_SLICES, slice_of(extension), "wardle")
        service = {"name": "api", "namespace": "wardle"}
        spec = {"group": GROUP, "version": VERSION, "service": service, "caBundle": bundle}
        spec |= {"groupPriorityMinimum": 2000, "versionPriority": 15}
        await client.create(API_SERVICES, {"metadata": {"name": NAME}, "spec": spec})

    cluster.run(fill())
    assert until(cluster, "Passed")["status"] == "True"
    return cluster


def slice_of(extension, name="api"):
    host, port = extension.server_address
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "api"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [host]}],
        "ports": [{"name": "https", "port": port}],
    }


def until(cluster, *reasons, name=NAME):
    """The Available condition once it has one of the reasons, by watch."""

    async def wait():
        async for _, obj in cluster.client.watch(API_SERVICES, resource_version="0", field_selector=f"metadata.name={name}"):
            for condition in (obj.get("status") or {}).get("conditions") or ():
                if condition["reason"] in reasons:
                    return condition
        raise AssertionError

    return cluster.run(wait(), 20)


def freshness(cluster):
    """What aggregated discovery says of the group version."""
    cluster.admin()
    context = ssl.create_default_context(cafile=cluster.home / "ca.crt")
    context.load_cert_chain(cluster.home / "admin.crt", cluster.home / "admin.key")
    asked = Request(f"{cluster.url}/apis", headers={"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"})
    with urlopen(asked, context=context, timeout=10) as answer:
        groups = {group["metadata"]["name"]: group["versions"] for group in json.load(answer)["items"]}
    [version] = groups[GROUP]
    assert version["resources"][0]["resource"] == "flunders"
    assert version["resources"][0]["subresources"][0]["subresource"] == "status"
    return version["freshness"]


def test_what_is_served_here_is_registered(kubectl):
    rows = {line.split()[0]: line.split()[1:3] for line in kubectl("get", "apiservices", "--no-headers").splitlines()}
    assert rows["v1."] == rows["v1.apps"] == rows["v2.autoscaling"] == ["Local", "True"]
    assert "v1.apiregistration.k8s.io" not in rows
    apps = json.loads(kubectl("get", "apiservice", "v1.apps", "-o", "json"))
    assert apps["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
    assert apps["spec"] == {"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15}
    [condition] = apps["status"]["conditions"]
    assert (condition["reason"], condition["message"]) == ("Local", "Local APIServices are always available")


@pytest.mark.conformance(
    "[sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator "
    "[LinuxOnly] [Conformance]"
)
def test_kubectl_uses_the_group_as_any_other(kubectl, behind, extension):
    rows = {line.split()[0]: line.split()[1:3] for line in kubectl("get", "apiservices", "--no-headers").splitlines()}
    assert rows[NAME] == ["wardle/api", "True"]
    assert freshness(behind) == "Current"
    assert kubectl("api-resources", "--no-headers", "--api-group", GROUP).split() == ["flunders", "fl", API, "true", "Flunder"]
    assert API in kubectl("api-versions").split()
    assert kubectl("create", "-f", "-", stdin=json.dumps(FLUNDER)) == "flunder.wardle.example.com/f created\n"
    assert kubectl("get", "fl", "-o", "name") == "flunder.wardle.example.com/f\n"
    assert kubectl("get", "flunder", "f", "-o", "jsonpath={.metadata.uid}") == "f"
    assert "Nobody knows" in kubectl("explain", "flunders")
    assert "deleted" in kubectl("delete", "fl", "f", "--wait=false")
    assert "no flunder f" in kubectl.fails("get", "--raw", f"{BASE}/namespaces/default/flunders/f")
    headers = extension.asked(f"{BASE}/namespaces/default/flunders/f")
    assert headers["common-name"] == ["front-proxy-client"]
    assert headers["x-remote-user"] == ["admin"]
    assert headers["x-remote-group"] == ["system:masters", "system:authenticated"]
    assert headers["x-forwarded-for"] == ["127.0.0.1"]


def test_only_who_may_gets_through_and_as_who_they_are(kubectl, behind, extension):
    before = len(extension.seen)
    told = kubectl.fails("get", "flunders", "--as", "jane", "--as-group", "readers", "--as-uid", "7")
    assert 'User "jane" cannot list resource "flunders" in API group "wardle.example.com" in the namespace "default"' in told
    assert not [path for _, path, _ in extension.seen[before:] if path.endswith("flunders")]
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=flunders.wardle.example.com")
    kubectl("create", "rolebinding", "reader", "--role=reader", "--group=readers")
    assert "No resources found" in kubectl.run("get", "fl", "--as", "jane", "--as-group", "readers", "--as-uid", "7").stderr
    headers = extension.asked(f"{BASE}/namespaces/default/flunders")
    assert (headers["x-remote-user"], headers["x-remote-uid"]) == (["jane"], ["7"])
    assert headers["x-remote-group"] == ["readers", "system:authenticated"]
    assert not [name for name in headers if name.startswith(("impersonate", "authorization"))]
    jane = ("--as", "jane", "--as-group", "readers", "--validate=false")
    assert "cannot create" in kubectl.fails("create", "-f", "-", *jane, stdin=json.dumps(FLUNDER))


def test_watches_are_told_as_they_come(kubectl, behind, extension):
    command = [str(KUBECTLS[-1]), "get", "--raw", f"{BASE}/flunders?watch=true"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=kubectl._env) as watching:
        try:
            for name in ("first", "second"):
                obj = {**FLUNDER, "metadata": {"name": name, "namespace": "default"}}
                kubectl("create", "-f", "-", stdin=json.dumps(obj))
                assert json.loads(watching.stdout.readline())["object"]["metadata"]["name"] == name
        finally:
            watching.terminate()


def test_upgraded_connections_are_joined(behind, cluster):
    cluster.admin()
    context = ssl.create_default_context(cafile=cluster.home / "ca.crt")
    context.load_cert_chain(cluster.home / "admin.crt", cluster.home / "admin.key")
    with socket.create_connection(("127.0.0.1", cluster.port), 10) as raw, context.wrap_socket(raw, server_hostname="localhost") as sock:
        sock.sendall(f"GET {BASE}/flunders/x/echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(4096)
        assert answer.startswith(b"HTTP/1.1 101 ")
        sock.sendall(b"hello")
        assert sock.recv(5) == b"HELLO"


def test_discovery_and_openapi_know_the_group(kubectl, behind):
    groups = [group["name"] for group in json.loads(kubectl("get", "--raw", "/apis"))["groups"]]
    assert groups[-1] == GROUP
    group = json.loads(kubectl("get", "--raw", f"/apis/{GROUP}"))
    assert group["preferredVersion"] == {"groupVersion": API, "version": VERSION}
    assert json.loads(kubectl("get", "--raw", BASE))["resources"][0]["name"] == "flunders"
    index = json.loads(kubectl("get", "--raw", "/openapi/v3"))["paths"]
    assert index[f"apis/{API}"] == {"serverRelativeURL": f"/openapi/v3/apis/{API}?hash=abc"}
    assert "Flunder" in json.loads(kubectl("get", "--raw", f"/openapi/v3/apis/{API}"))["components"]["schemas"]


def test_what_is_wrong_is_told_and_mended(kubectl, cluster, behind, extension, serving):
    client = cluster.client

    def refused(*words):
        told = kubectl.fails("get", "--raw", f"{BASE}/flunders")
        assert "ServiceUnavailable" in told
        assert all(word in told for word in words), told

    slices = slice_of(extension)
    cluster.run(client.delete(ENDPOINT_SLICES, "api", "wardle"))
    assert until(cluster, "EndpointsNotFound")["message"] == 'cannot find endpointslices for service/api in "wardle"'
    refused(NAME, "EndpointsNotFound")
    (ready,) = slices["endpoints"]
    cluster.run(client.create(ENDPOINT_SLICES, {**slices, "endpoints": [{**ready, "conditions": {"ready": False}}]}, "wardle"))
    assert 'no addresses with port name "https"' in until(cluster, "MissingEndpoints")["message"]
    cluster.run(client.patch(ENDPOINT_SLICES, "api", {"endpoints": slices["endpoints"]}, "wardle"))
    until(cluster, "Passed")
    cluster.run(client.patch(SERVICES, "api", {"spec": {"ports": [{"name": "https", "port": 444}]}}, "wardle"))
    assert until(cluster, "ServicePortError")["message"] == 'service/api in "wardle" is not listening on port 443'
    cluster.run(client.patch(SERVICES, "api", {"spec": {"ports": [{"name": "https", "port": 443}]}}, "wardle"))
    until(cluster, "Passed")
    extension.broken = True
    cluster.run(client.patch(ENDPOINT_SLICES, "api", {"metadata": {"annotations": {"look": "again"}}}, "wardle"))
    assert f"bad status from https://{extension.server_address[0]}" in until(cluster, "FailedDiscoveryCheck")["message"]
    assert freshness(cluster) == "Stale"
    extension.broken = False
    cluster.run(client.patch(ENDPOINT_SLICES, "api", {"metadata": {"annotations": {"look": "once more"}}}, "wardle"))
    until(cluster, "Passed")
    stranger = base64.b64encode((cluster.home / "ca.crt").read_bytes()).decode()
    own = base64.b64encode((serving / "ca.pem").read_bytes()).decode()
    cluster.run(client.patch(API_SERVICES, NAME, {"spec": {"caBundle": stranger}}))
    assert "cannot trust" in until(cluster, "FailedDiscoveryCheck")["message"]
    cluster.run(client.patch(API_SERVICES, NAME, {"spec": {"caBundle": None, "insecureSkipTLSVerify": True}}))
    until(cluster, "Passed")
    cluster.run(client.patch(API_SERVICES, NAME, {"spec": {"caBundle": own, "insecureSkipTLSVerify": False}}))
    until(cluster, "Passed")


def test_the_end_of_a_namespace_reaches_what_is_served_elsewhere(kubectl, cluster, extension, behind):
    client, server = cluster.client, cluster._serving.server
    registry = server.api.core.registry

    async def conclude(name, truth):
        """Run the namespace's controller until what it tells is so."""
        config = Config(
            resources=lambda: collected_resources(registry), aggregated=lambda: aggregated_resources(server.aggregator.foreign())
        )
        running = asyncio.ensure_future(run_all(client, config, controllers=(NamespaceController,)))
        try:
            async for kind, obj in client.watch(NAMESPACES, resource_version="0", field_selector=f"metadata.name={name}"):
                told = {each["type"]: each for each in (obj.get("status") or {}).get("conditions") or ()}
                if truth(kind, told):
                    return told
            raise AssertionError
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def gone(kind, _):
        return kind == "DELETED"

    for name in ("doomed", "spared", "other"):
        cluster.run(client.create(NAMESPACES, {"metadata": {"name": name}}))
        flunder = {**FLUNDER, "metadata": {"name": f"in-{name}", "namespace": name}}
        kubectl("create", "-f", "-", stdin=json.dumps(flunder))
    cluster.run(client.delete(NAMESPACES, "doomed"))
    cluster.run(conclude("doomed", gone))
    assert "in-doomed" not in extension.flunders

    extension.broken = True
    cluster.run(client.patch(ENDPOINT_SLICES, "api", {"metadata": {"annotations": {"look": "later"}}}, "wardle"))
    until(cluster, "FailedDiscoveryCheck")
    cluster.run(client.delete(NAMESPACES, "spared"))
    told = cluster.run(conclude("spared", lambda _, told: "NamespaceDeletionDiscoveryFailure" in told))
    failed = told["NamespaceDeletionDiscoveryFailure"]
    assert (failed["status"], failed["reason"]) == ("True", "DiscoveryFailed")
    assert failed["message"] == (
        "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: "
        f"{API}: stale GroupVersion discovery: {API}"
    )
    assert told["NamespaceContentRemaining"]["status"] == "False"
    extension.broken = False
    cluster.run(client.patch(ENDPOINT_SLICES, "api", {"metadata": {"annotations": {"look": "at last"}}}, "wardle"))
    until(cluster, "Passed")
    cluster.run(conclude("spared", gone))
    assert "in-spared" not in extension.flunders
    assert "in-other" in extension.flunders


def test_a_service_that_is_none_or_leads_out(kubectl, cluster, behind):
    cluster.run(
        cluster.client.create(
            SERVICES, {"metadata": {"name": "away"}, "spec": {"type": "ExternalName", "externalName": "a.test"}}, "default"
        )
    )
    for service, reason in (("none", "ServiceNotFound"), ("away", "ServiceAccessError")):
        spec = {"group": "other.test", "version": "v1", "service": {"name": service, "namespace": "default"}}
        spec |= {"groupPriorityMinimum": 1, "versionPriority": 1}
        cluster.run(cluster.client.create(API_SERVICES, {"metadata": {"name": "v1.other.test"}, "spec": spec}))
        assert until(cluster, reason, name="v1.other.test")["status"] == "False"
        assert f"False ({reason})" in kubectl("get", "apiservice", "v1.other.test")
        assert "other.test/v1" in kubectl("get", "--raw", "/apis")
        cluster.run(cluster.client.delete(API_SERVICES, "v1.other.test"))
        assert "other.test/v1" not in kubectl("get", "--raw", "/apis")


def test_nobody_takes_a_group_of_kubernetes_away(kubectl, cluster):
    spec = {"service": {"name": "api", "namespace": "wardle"}, "insecureSkipTLSVerify": True, "versionPriority": 999}
    kubectl("patch", "apiservice", "v1.apps", "--type=merge", "-p", json.dumps({"spec": spec}))
    assert kubectl("get", "deployments", "-A") == ""
    kubectl("wait", "apiservice", "v1.apps", "--for=jsonpath={.spec.versionPriority}=15", "--timeout=10s")
    kubectl("delete", "apiservice", "v1.batch")
    assert until(cluster, "Local", name="v1.batch")["status"] == "True"


def test_groups_of_custom_resources_have_one_too(kubectl, cluster):
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    spec = {"group": "crd.test", "scope": "Cluster", "names": {"plural": "foos", "kind": "Foo"}, "versions": [version]}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "foos.crd.test"},
        "spec": spec,
    }
    kubectl("create", "-f", "-", stdin=json.dumps(definition))
    assert until(cluster, "Local", name="v1.crd.test")["status"] == "True"
    assert kubectl("get", "apiservice", "v1.crd.test", "-o", "jsonpath={.spec.groupPriorityMinimum}") == "1000"
    kubectl("delete", "crd", "foos.crd.test")
    kubectl("wait", "apiservice", "v1.crd.test", "--for=delete", "--timeout=10s")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": "v2"}, 'must be `spec.version+"."+spec.group`'),
        ({"groupPriorityMinimum": 0}, "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000"),
        ({"versionPriority": 1001}, "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000"),
        ({"service": {"namespace": "n"}}, "spec.service.name: Required value"),
        ({"service": {"namespace": "n", "name": "s", "port": 70000}}, "port is not valid: must be between 1 and 65535, inclusive"),
        ({"caBundle": "YQ==", "insecureSkipTLSVerify": True}, "may not be true if caBundle is present"),
        ({"service": None, "caBundle": "YQ=="}, 'spec.caBundle: Invalid value: "1 bytes": local APIServices may not have a caBundle'),
        ({"service": None, "insecureSkipTLSVerify": True}, "local APIServices may not have insecureSkipTLSVerify"),
    ],
)
def test_refused(cluster, change, told):
    spec = {
        "group": "bad.test",
        "version": "v1",
        "groupPriorityMinimum": 1,
        "versionPriority": 1,
        "service": {"namespace": "n", "name": "s"},
    }
    spec = {key: value for key, value in {**spec, **change}.items() if value is not None}
    with pytest.raises(StatusError) as refused:
        cluster.run(cluster.client.create(API_SERVICES, {"metadata": {"name": "v1.bad.test"}, "spec": spec}))
    assert refused.value.code == 422
    assert told in str(refused.value)


def test_users_are_told_in_headers():
    told = identity(User("jö", ("g",), "u", {"example.com/Ünder%": ("1", "2")}))
    assert told[:3] == [("X-Remote-User", "j\xc3\xb6"), ("X-Remote-Uid", "u"), ("X-Remote-Group", "g")]
    assert told[3:] == [("X-Remote-Extra-example.com%2F%C3%BCnder%25", value) for value in ("1", "2")]
    with pytest.raises(StatusError, match="line breaks"):
        identity(User("a\r\nX-Remote-Group: system:masters"))
