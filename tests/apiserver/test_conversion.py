"""Custom resources of several versions, converted by a webhook over TLS: for every verb, in batches, and when it fails."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl

from atoll.client.resources import ENDPOINT_SLICES, SERVICES, Resource
from own_address import own_address
from tls_files import Authority

NUMBERS = count()
GROUP = "stable.example.com"
V1, V2 = f"{GROUP}/v1", f"{GROUP}/v2"


class Converter(BaseHTTPRequestHandler):
    """v1 has spec.hostPort, v2 spec.host and spec.port. `mend` may change the answer before it goes; `reviews` are the requests."""

    reviews: list[dict]
    mend = None

    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        request = review["request"]
        type(self).reviews.append({"path": self.path, "apiVersion": review["apiVersion"], **request})
        converted = [self.convert(obj, request["desiredAPIVersion"]) for obj in request["objects"]]
        response = {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted}
        answer = {"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response}
        if type(self).mend is not None:
            answer = type(self).mend(answer) or answer
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def convert(self, obj, wanted):
        spec = dict(obj.get("spec") or {})
        if wanted == V2 and "hostPort" in spec:
            spec["host"], _, spec["port"] = spec.pop("hostPort").partition(":")
        elif wanted == V1 and "host" in spec:
            spec["hostPort"] = f"{spec.pop('host')}:{spec.pop('port')}"
        labels = {**(obj["metadata"].get("labels") or {}), "seen-as": wanted.rpartition("/")[2]}
        spec["unknown"] = "pruned"
        return {**obj, "apiVersion": wanted, "metadata": {**obj["metadata"], "labels": labels, "generation": 99}, "spec": spec}

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def webhook(cluster):
    files = Authority(cluster.home / "hook").sign("serving", "127.0.0.1", "hook.default.svc")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "cert.pem", files / "key.pem")
    server = ThreadingHTTPServer(("0.0.0.0", 0), Converter)  # called on loopback, and as an endpoint
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def kubectl(cluster):
    return Kubectl(KUBECTLS[-1], cluster.admin())


def version(name, *properties, storage=False):
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {each: {"type": "string"} for each in properties}}}}
    schema["properties"]["spec"]["properties"]["replicas"] = {"type": "integer", "default": 1}
    columns = [{"name": each, "type": "string", "jsonPath": f".spec.{each}"} for each in properties]
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": columns,
        "selectableFields": [{"jsonPath": f".spec.{each}"} for each in properties],
        "subresources": {"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}, "status": {}},
    }


def definition(client, bundle, stored="v1", plural="endpointers"):
    singular = plural.removesuffix("s")
    versions = [version("v1", "hostPort", storage=stored == "v1"), version("v2", "host", "port", storage=stored == "v2")]
    conversion = {
        "strategy": "Webhook",
        "webhook": {"clientConfig": {**client, "caBundle": bundle}, "conversionReviewVersions": ["v9", "v1"]},
    }
    spec = {"group": GROUP, "scope": "Namespaced", "names": {"plural": plural, "kind": singular.title()}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {**spec, "versions": versions, "conversion": conversion},
    }


def bundle_of(cluster):
    return base64.b64encode((cluster.home / "hook" / "ca.pem").read_bytes()).decode()


@pytest.fixture(scope="module")
def defined(cluster, kubectl, webhook):
    client = {"url": f"https://127.0.0.1:{webhook}/convert"}
    kubectl("create", "-f", "-", stdin=json.dumps(definition(client, bundle_of(cluster))))
    kubectl("wait", f"crd/endpointers.{GROUP}", "--for=condition=Established", "--timeout=10s")


@pytest.fixture(autouse=True)
def fresh():
    Converter.reviews = []
    Converter.mend = None


@pytest.fixture
def made(kubectl, defined):
    """An object that was written in v1."""
    name = f"e{next(NUMBERS)}"
    obj = {"apiVersion": V1, "kind": "Endpointer", "metadata": {"name": name}, "spec": {"hostPort": "localhost:80"}}
    kubectl("create", "-f", "-", stdin=json.dumps(obj))
    yield name
    Converter.mend = None
    kubectl("delete", f"endpointers.v1.{GROUP}", name)


def in_version(kubectl, which, name):
    return json.loads(kubectl("get", f"endpointers.{which}.{GROUP}", name, "-o", "json"))


def test_what_is_asked_for_as_it_is_stored_is_not_converted(kubectl, made):
    assert in_version(kubectl, "v1", made)["spec"] == {"hostPort": "localhost:80", "replicas": 1}
    assert Converter.reviews == []


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert from CR v1 to CR v2 "
    "[Conformance]"
)
def test_another_version_is_what_the_webhook_makes_of_it(kubectl, made):
    seen = in_version(kubectl, "v2", made)
    assert (seen["apiVersion"], seen["spec"]) == (V2, {"host": "localhost", "port": "80", "replicas": 1})
    assert seen["metadata"]["labels"] == {"seen-as": "v2"}
    assert seen["metadata"]["generation"] == 1
    review = Converter.reviews[-1]
    assert (review["path"], review["apiVersion"], review["desiredAPIVersion"]) == ("/convert", "apiextensions.k8s.io/v1", V2)
    assert review["objects"][0]["metadata"]["uid"] == seen["metadata"]["uid"]
    assert kubectl("get", f"endpointers.v2.{GROUP}", made, "--no-headers").split() == [made, "localhost", "80"]


def test_writes_end_in_the_version_stored(kubectl, made):
    patch = json.dumps({"spec": {"port": "81"}})
    kubectl("patch", f"endpointers.v2.{GROUP}", made, "--type=merge", "-p", patch)
    assert in_version(kubectl, "v1", made)["spec"]["hostPort"] == "localhost:81"
    obj = in_version(kubectl, "v2", made)
    obj["spec"]["host"] = "other"
    kubectl("replace", "-f", "-", stdin=json.dumps(obj))
    assert in_version(kubectl, "v1", made)["spec"]["hostPort"] == "other:81"
    applied = {"apiVersion": V2, "kind": "Endpointer", "metadata": {"name": made}, "spec": {"port": "82"}}
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(applied))
    assert in_version(kubectl, "v1", made)["spec"]["hostPort"] == "other:82"
    kubectl("scale", f"endpointers.v2.{GROUP}/{made}", "--replicas=3")
    assert in_version(kubectl, "v1", made)["spec"] == {"hostPort": "other:82", "replicas": 3}
    new = {"apiVersion": V2, "kind": "Endpointer", "metadata": {"generateName": "g-"}, "spec": {"host": "h", "port": "1"}}
    name = kubectl("create", "-f", "-", "-o", "jsonpath={.metadata.name}", stdin=json.dumps(new))
    assert in_version(kubectl, "v1", name)["spec"]["hostPort"] == "h:1"
    assert kubectl("delete", f"endpointers.v2.{GROUP}", name, "--cascade=background").endswith("deleted from default namespace\n")


def test_a_list_is_converted_in_one_call(kubectl, made):
    items = [
        {"apiVersion": V1, "kind": "Endpointer", "metadata": {"name": f"l{number}"}, "spec": {"hostPort": "a:1"}} for number in range(5)
    ]
    kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    Converter.reviews.clear()
    listed = json.loads(kubectl("get", "--raw", f"/apis/{V2}/namespaces/default/endpointers"))["items"]
    assert [each["spec"].get("host") for each in listed if each["metadata"]["name"].startswith("l")] == ["a"] * 5
    [review] = Converter.reviews
    assert len(review["objects"]) == len(listed)
    kubectl("delete", f"endpointers.v1.{GROUP}", *(f"l{number}" for number in range(5)))


def test_selectors_judge_the_version_served(kubectl, made):
    path = "/apis/{}/namespaces/default/endpointers?{}"

    def found(version, query):
        return [each["metadata"]["name"] for each in json.loads(kubectl("get", "--raw", path.format(version, query)))["items"]]

    assert found(V1, "fieldSelector=spec.hostPort=localhost:80") == [made]
    assert found(V2, "fieldSelector=spec.host=localhost") == [made]
    assert found(V2, "fieldSelector=spec.host=other") == []
    assert found(V2, "labelSelector=seen-as=v2") == [made]
    assert found(V2, f"labelSelector=seen-as=v2&fieldSelector=metadata.name={made}") == [made]
    assert found(V1, "labelSelector=seen-as=v2") == []
    for version, field in ((V1, "spec.host"), (V2, "spec.hostPort")):
        told = kubectl.fails("get", "--raw", path.format(version, f"fieldSelector={field}=a"))
        assert f"field label not supported: {field}" in told
    assert kubectl("delete", f"endpointers.v2.{GROUP}", "--field-selector=spec.host=other").startswith("No resources found")


def test_watches_select_by_the_version_served(cluster, kubectl, made):
    async def follow():
        resource = Resource(GROUP, "v2", "endpointers", True, "Endpointer")
        seen = []
        async for kind, obj in cluster.client.watch(resource, "default", resource_version="0", field_selector="spec.host=a"):
            if kind == "BOOKMARK":
                continue
            seen.append((kind, obj["apiVersion"], (obj.get("spec") or {}).get("port")))
            if len(seen) == 5:
                break
        return seen

    async def change():
        following = asyncio.ensure_future(follow())
        door = Resource(GROUP, "v1", "endpointers", True, "Endpointer")
        other = {"apiVersion": V1, "kind": "Endpointer", "metadata": {"name": "other"}, "spec": {"hostPort": "a:1"}}
        await cluster.client.create(door, other, "default")
        for value in ("a:2", "a:3", "b:3", "a:4"):
            await cluster.client.patch(door, made, {"spec": {"hostPort": value}}, "default")
            await asyncio.sleep(0)
        try:
            return await asyncio.wait_for(following, 10)
        finally:
            await cluster.client.delete(door, "other", "default")

    expected = [("ADDED", V2, "1"), ("ADDED", V2, "2"), ("MODIFIED", V2, "3"), ("DELETED", V2, "3"), ("ADDED", V2, "4")]
    assert cluster.run(change()) == expected


def test_watches_tell_in_their_version(kubectl, made):
    command = [
        str(KUBECTLS[-1]),
        "get",
        "--raw",
        f"/apis/{V2}/namespaces/default/endpointers?watch=true&fieldSelector=metadata.name={made}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=kubectl._env) as watching:
        try:
            assert json.loads(watching.stdout.readline())["object"]["spec"]["port"] == "80"
            kubectl("patch", f"endpointers.v1.{GROUP}", made, "--type=merge", "-p", '{"spec":{"hostPort":"w:9"}}')
            event = json.loads(watching.stdout.readline())
            assert (event["type"], event["object"]["apiVersion"], event["object"]["spec"]["host"]) == ("MODIFIED", V2, "w")
            Converter.mend = lambda _: [1]
            kubectl("patch", f"endpointers.v1.{GROUP}", made, "--type=merge", "-p", '{"spec":{"hostPort":"w:8"}}')
            event = json.loads(watching.stdout.readline())
            assert (event["type"], event["object"]["code"]) == ("ERROR", 500)
        finally:
            watching.terminate()


def changed(path, value):
    def mend(answer):
        at = answer
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return mend


OBJECT = ("response", "convertedObjects", 0)
FAILED = f"conversion webhook for {V1}, Kind=Endpointer failed: "
WRONG = f"conversion webhook for {V1}, Kind=Endpointer returned invalid converted object at index 0: "


@pytest.mark.parametrize(
    ("mend", "told"),
    [
        (changed(("response", "result"), {"status": "Failure", "message": "not today"}), f"{FAILED}not today"),
        (changed(("response", "result"), {}), f"{FAILED}response.result.status was '', not 'Success'"),
        (changed(("response", "uid"), "x"), f'{FAILED}expected response.uid="'),
        (changed(("kind",), "Other"), f"{FAILED}expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview"),
        (changed(("response",), None), f"{FAILED}no response provided"),
        (changed(("response", "convertedObjects"), []), "returned 0 objects, expected 1"),
        (changed((*OBJECT, "apiVersion"), V1), f"{WRONG}invalid groupVersion (expected {V2}, received {V1})"),
        (changed((*OBJECT, "kind"), "Other"), f"{WRONG}invalid kind (expected Endpointer, received Other)"),
        (changed((*OBJECT, "metadata", "name"), "other"), f"{WRONG}must have the same name: "),
        (changed((*OBJECT, "metadata", "uid"), "other"), f"{WRONG}must have the same UID: "),
        (changed((*OBJECT, "metadata"), None), "missing metadata in converted object"),
        (changed((*OBJECT, "metadata", "labels"), {"a": 1}), "metadata.labels[a] must be a string"),
        (changed((*OBJECT, "metadata", "labels"), {"a b": "c"}), "returned invalid metadata in object at index 0: metadata.labels"),
        (lambda _: [1], f"{FAILED}the answer is no ConversionReview"),
    ],
)
def test_failures_are_told(kubectl, made, mend, told):
    Converter.mend = mend
    assert told in kubectl.fails("get", f"endpointers.v2.{GROUP}", made)
    in_version(kubectl, "v1", made)


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert a non homogeneous list of CRs "
    "[Conformance]"
)
def test_a_list_of_what_is_stored_in_several_versions(cluster, kubectl, webhook, made):
    bundle, client = bundle_of(cluster), {"url": f"https://127.0.0.1:{webhook}/convert"}
    kubectl("replace", "-f", "-", stdin=json.dumps(definition(client, bundle, "v2")))
    try:
        new = {"apiVersion": V2, "kind": "Endpointer", "metadata": {"name": "newer"}, "spec": {"host": "b", "port": "2"}}
        kubectl("create", "-f", "-", stdin=json.dumps(new))
        for which, field, told in (("v1", "hostPort", {"localhost:80", "b:2"}), ("v2", "host", {"localhost", "b"})):
            Converter.reviews.clear()
            listed = json.loads(kubectl("get", f"endpointers.{which}.{GROUP}", "-o", "json"))["items"]
            assert {each["apiVersion"] for each in listed} == {f"{GROUP}/{which}"}
            assert {each["spec"][field] for each in listed} == told
            [review] = Converter.reviews  # of those alone that are stored otherwise
            assert len(review["objects"]) == len(listed) - 1
        kubectl("delete", f"endpointers.v2.{GROUP}", "newer")
    finally:
        kubectl("replace", "-f", "-", stdin=json.dumps(definition(client, bundle, "v1")))


def test_a_new_storage_version_leaves_what_is_stored_as_it_is(cluster, kubectl, webhook, made):
    bundle, client = bundle_of(cluster), {"url": f"https://127.0.0.1:{webhook}/convert"}
    kubectl("replace", "-f", "-", stdin=json.dumps(definition(client, bundle, "v2")))
    try:
        assert in_version(kubectl, "v1", made)["spec"]["hostPort"] == "localhost:80"
        assert Converter.reviews == []
        assert in_version(kubectl, "v2", made)["spec"]["port"] == "80"
        Converter.mend = lambda _: [1]
        assert "failed" in kubectl.fails("annotate", f"endpointers.v2.{GROUP}", made, "a=b")
        Converter.mend = None
        kubectl("annotate", f"endpointers.v2.{GROUP}", made, "a=b")
        Converter.reviews.clear()
        assert in_version(kubectl, "v2", made)["metadata"]["annotations"] == {"a": "b"}
        assert Converter.reviews == []
        assert in_version(kubectl, "v1", made)["spec"]["hostPort"] == "localhost:80"
    finally:
        kubectl("replace", "-f", "-", stdin=json.dumps(definition(client, bundle, "v1")))


@pytest.fixture
def address():
    with own_address() as address:
        yield address


def test_a_service_is_called_at_its_endpoints(cluster, kubectl, webhook, address):
    async def serve():
        for name in ("hook", "other"):
            await cluster.client.create(SERVICES, {"metadata": {"name": name}, "spec": {"ports": [{"port": 443}]}}, "default")
            metadata = {"name": name, "labels": {"kubernetes.io/service-name": name}}
            endpoints = {"endpoints": [{"addresses": [address]}], "ports": [{"port": webhook}]}
            await cluster.client.create(ENDPOINT_SLICES, {"metadata": metadata, "addressType": "IPv4", **endpoints}, "default")

    client = {"service": {"name": "hook", "namespace": "default", "path": "/by-service"}}
    kubectl("create", "-f", "-", stdin=json.dumps(definition(client, bundle_of(cluster), plural="gadgets")))
    kubectl("wait", f"crd/gadgets.{GROUP}", "--for=condition=Established", "--timeout=10s")
    obj = {"apiVersion": V1, "kind": "Gadget", "metadata": {"name": "g"}, "spec": {"hostPort": "a:1"}}
    kubectl("create", "-f", "-", stdin=json.dumps(obj))
    assert 'failed: service "hook" not found' in kubectl.fails("get", f"gadgets.v2.{GROUP}", "g")
    cluster.run(serve())
    assert kubectl("get", f"gadgets.v2.{GROUP}", "g", "-o", "jsonpath={.spec.host}") == "a"
    assert Converter.reviews[-1]["path"] == "/by-service"
    patch = {"spec": {"conversion": {"webhook": {"clientConfig": {"service": {"name": "other"}}}}}}
    kubectl("patch", "crd", f"gadgets.{GROUP}", "--type=merge", "-p", json.dumps(patch))
    assert "cannot trust" in kubectl.fails("get", f"gadgets.v2.{GROUP}", "g")  # the certificate is not that of other.default.svc


@pytest.mark.parametrize(
    ("conversion", "told"),
    [
        ({"strategy": "Webhook"}, "spec.conversion.webhook.clientConfig: Required value: required when strategy is set to Webhook"),
        (
            {"webhook": {"clientConfig": {"url": "https://a.test"}, "conversionReviewVersions": []}},
            "conversionReviewVersions: Required value",
        ),
        (
            {"webhook": {"clientConfig": {"url": "https://a.test"}, "conversionReviewVersions": ["v9"]}},
            "must include at least one of v1, v1beta1",
        ),
        ({"webhook": {"clientConfig": {}, "conversionReviewVersions": ["v1"]}}, "exactly one of url or service is required"),
    ],
)
def test_definitions_that_are_refused(kubectl, conversion, told):
    wanted = definition({}, "", plural="refused")
    wanted["spec"]["conversion"] = {"strategy": "Webhook", **conversion}
    assert told in kubectl.fails("create", "-f", "-", stdin=json.dumps(wanted))


def test_a_webhook_may_come_after_the_version_stored_has_changed(cluster, kubectl, webhook):
    """What was stored under v1 while nothing was converted is v1's still, once there is something to convert it."""
    before = definition({}, "", plural="latecomers")
    hook = {**before["spec"]["conversion"]}
    hook["webhook"]["clientConfig"] = {"url": f"https://127.0.0.1:{webhook}/convert", "caBundle": bundle_of(cluster)}
    before["spec"]["conversion"] = {"strategy": "None"}
    kubectl("create", "-f", "-", stdin=json.dumps(before))
    kubectl("wait", f"crd/latecomers.{GROUP}", "--for=condition=Established", "--timeout=10s")
    for name in ("old", "rewritten", "deleted"):
        obj = {"apiVersion": V1, "kind": "Latecomer", "metadata": {"name": name}, "spec": {"hostPort": "a:1"}}
        kubectl("create", "-f", "-", stdin=json.dumps(obj))

    def get(version, name):
        return json.loads(kubectl("get", f"latecomers.{version}.{GROUP}", name, "-o", "json"))

    def change(**spec):
        kubectl("patch", "crd", f"latecomers.{GROUP}", "--type=merge", "-p", json.dumps({"spec": spec}))

    change(versions=definition({}, "", "v2")["spec"]["versions"])
    assert (get("v2", "old")["apiVersion"], Converter.reviews) == (V2, [])
    kubectl("patch", f"latecomers.v2.{GROUP}", "rewritten", "--type=merge", "-p", '{"spec":{"host":"b","port":"2","hostPort":null}}')
    change(conversion=hook)
    assert Converter.reviews == []
    assert get("v2", "old")["spec"] == {"host": "a", "port": "1", "replicas": 1}
    assert [obj["apiVersion"] for obj in Converter.reviews[-1]["objects"]] == [V1]
    assert get("v1", "rewritten")["spec"]["hostPort"] == "b:2"
    assert Converter.reviews[-1]["desiredAPIVersion"] == V1
    assert get("v1", "old")["spec"] == {"hostPort": "a:1", "replicas": 1}
    kubectl("delete", f"latecomers.v2.{GROUP}", "deleted")
    change(conversion={"strategy": "None", "webhook": None})
    assert get("v2", "old")["apiVersion"] == V2
    kubectl("delete", "crd", f"latecomers.{GROUP}")
