"""Certificate requests from kubectl to a signed certificate that the server takes; what is approved by itself, refused, and cleaned up."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import ipaddress
import json
import ssl
import time
from http.client import HTTPSConnection
from itertools import count

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from atoll.apiserver import InProcessClient
from atoll.apiserver.call import User
from atoll.client.factory import InformerFactory
from atoll.client.resources import CERTIFICATE_SIGNING_REQUESTS as CSRS
from atoll.client.resources import SECRETS
from atoll.controllers.base import Config
from atoll.controllers.certificates.approving import CertificateApprovingController
from atoll.controllers.certificates.cleaner import CertificateCleanerController, TokenCleanerController
from atoll.controllers.certificates.signing import CertificateSigningController
from atoll.controllers.registry import run_all
from atoll.errors import StatusError
from atoll.units import timestamp_seconds

CONTROLLERS = (CertificateApprovingController, CertificateSigningController, CertificateCleanerController, TokenCleanerController)
NUMBERS = count()
CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING = "kubernetes.io/kubelet-serving"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    authority = (cluster.home / "ca.crt", cluster.home / "ca.key")

    async def controllers():
        informers = InformerFactory(cluster.client)
        running = run_all(cluster.client, Config(signing_authority=authority), informers=informers, controllers=CONTROLLERS)
        await asyncio.gather(informers.run(), running)

    async def start():
        return asyncio.create_task(controllers())

    async def stop():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    task = cluster.run(start())
    yield cluster
    cluster.run(stop())
    cluster.close()


@pytest.fixture
def kubectl(cluster):
    return Kubectl(KUBECTLS[-1], cluster.admin())


def a_request(name, *groups, hosts=()):
    """A key, and a request for a certificate of it in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([*subject, x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    if hosts:
        names = [x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    return key, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def manifest(pem, signer=CLIENT, usages=("client auth",), **spec):
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": f"r{next(NUMBERS)}"},
        "spec": {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": list(usages), **spec},
    }


def as_user(cluster, name, *groups):
    return InProcessClient(cluster._serving.server, User(name, (*groups, "system:authenticated")))


def wait(cluster, name, condition):
    end = time.monotonic() + 10
    while True:
        found = cluster.run(cluster.client.get(CSRS, name))
        if condition(found.get("status") or {}):
            return found
        assert time.monotonic() < end, found.get("status")
        time.sleep(0.02)


def certificate_of(found):
    return x509.load_pem_x509_certificate(base64.b64decode(found["status"]["certificate"]))


def conditions(status):
    return {condition["type"]: condition for condition in status.get("conditions") or ()}


def test_approved_with_kubectl_and_used(cluster, kubectl, tmp_path):
    key, pem = a_request("ann", "team")
    wanted = manifest(pem, expirationSeconds=3600)
    kubectl("create", "-f", "-", stdin=json.dumps({**wanted, "spec": {**wanted["spec"], "username": "root", "groups": ["system:masters"]}}))
    name = wanted["metadata"]["name"]
    spec = json.loads(kubectl("get", "csr", name, "-o", "json"))["spec"]
    assert (spec["username"], spec["groups"]) == ("admin", ["system:masters", "system:authenticated"])
    assert "Pending" in kubectl("get", "csr", name)
    assert f"{name} approved" in kubectl("certificate", "approve", name)
    found = wait(cluster, name, lambda status: "certificate" in status)
    assert "Approved,Issued" in kubectl("get", "csr", name)
    approved = conditions(found["status"])["Approved"]
    assert approved["reason"] == "KubectlApprove"
    assert approved["lastTransitionTime"]
    signed = certificate_of(found)
    left = signed.not_valid_after_utc - dt.datetime.now(dt.UTC)
    assert dt.timedelta(minutes=58) < left <= dt.timedelta(hours=1)
    (tmp_path / "ann.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "ann.key").write_bytes(private)
    context = ssl.create_default_context(cafile=cluster.home / "ca.crt")
    context.load_cert_chain(tmp_path / "ann.crt", tmp_path / "ann.key")
    connection = HTTPSConnection("127.0.0.1", cluster.port, context=context, timeout=10)
    connection.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", b"{}", {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert answer["status"]["userInfo"] == {"username": "ann", "groups": ["team", "system:authenticated"]}
    told = kubectl.fails("certificate", "deny", name)
    assert "already Approved" in told


def test_denied_with_kubectl(cluster, kubectl):
    wanted = manifest(a_request("ann")[1])
    kubectl("create", "-f", "-", stdin=json.dumps(wanted))
    kubectl("certificate", "deny", wanted["metadata"]["name"])
    assert "Denied" in kubectl("get", "csr", wanted["metadata"]["name"])


def test_what_no_request_may_ask(kubectl):
    _, pem = a_request("ann")

    def told(made):
        return kubectl.fails("create", "-f", "-", stdin=json.dumps(made))

    assert "PEM block type must be CERTIFICATE REQUEST" in told(manifest(b"x"))
    assert "usages is required" in told(manifest(pem, usages=()))
    assert 'spec.usages[0]: Unsupported value: "flying"' in told(manifest(pem, usages=("flying",)))
    assert "the legacy signerName is not allowed via this API version" in told(manifest(pem, "kubernetes.io/legacy-unknown"))
    assert "may not specify a duration less than 600 seconds" in told(manifest(pem, expirationSeconds=1))
    why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    assert why in told(manifest(a_request("ann", "system:masters")[1]))


def test_a_joining_node_is_approved_by_itself(cluster):
    data = {
        "token-id": "abc123",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true",
        "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
    }
    secret = {"metadata": {"name": "bootstrap-token-abc123"}, "type": "bootstrap.kubernetes.io/token", "stringData": data}
    cluster.run(cluster.client.create(SECRETS, secret, "kube-system"))
    _, pem = a_request("system:node:n1", "system:nodes")
    wanted = manifest(pem, KUBELET, ("digital signature", "client auth"))
    context = ssl.create_default_context(cafile=cluster.home / "ca.crt")
    connection = HTTPSConnection("127.0.0.1", cluster.port, context=context, timeout=10)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer abc123.0123456789abcdef"}
    connection.request("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", json.dumps(wanted), headers)
    answer = connection.getresponse()
    assert answer.status == 201, answer.read()
    made = json.loads(answer.read())
    assert made["spec"]["username"] == "system:bootstrap:abc123"
    connection.request("GET", "/api", headers={"Authorization": "Bearer abc123.0123456789abcdee"})
    assert connection.getresponse().status == 401
    connection.close()
    found = wait(cluster, wanted["metadata"]["name"], lambda status: "certificate" in status)
    assert conditions(found["status"])["Approved"]["reason"] == "AutoApproved"
    assert certificate_of(found).subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"


def test_a_node_renews_its_own_certificate_alone(cluster):
    node = as_user(cluster, "system:node:n1", "system:nodes")
    own = manifest(a_request("system:node:n1", "system:nodes")[1], KUBELET, ("digital signature", "client auth"))
    cluster.run(node.create(CSRS, own))
    wait(cluster, own["metadata"]["name"], lambda status: "certificate" in status)
    other = manifest(a_request("system:node:n2", "system:nodes")[1], KUBELET, ("digital signature", "client auth"))
    cluster.run(node.create(CSRS, other))
    time.sleep(0.3)
    assert not cluster.run(cluster.client.get(CSRS, other["metadata"]["name"])).get("status")


def test_kubelet_serving_certificates(cluster, kubectl):
    node = as_user(cluster, "system:node:n1", "system:nodes")
    _, pem = a_request("system:node:n1", "system:nodes", hosts=("n1", "10.0.0.1"))
    good = manifest(pem, SERVING, ("digital signature", "server auth"))
    bad = manifest(a_request("system:node:n1", "system:nodes")[1], SERVING, ("digital signature", "server auth"))
    for wanted in (good, bad):
        cluster.run(node.create(CSRS, wanted))
        kubectl("certificate", "approve", wanted["metadata"]["name"])
    signed = certificate_of(wait(cluster, good["metadata"]["name"], lambda status: "certificate" in status))
    names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n1"]
    assert [usage.dotted_string for usage in signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value] == [
        "1.3.6.1.5.5.7.3.1"
    ]
    failed = wait(cluster, bad["metadata"]["name"], lambda status: "Failed" in conditions(status))
    told = conditions(failed["status"])["Failed"]
    assert (told["reason"], told["message"]) == ("SignerValidationFailure", "DNS or IP subjectAltName is required")


def test_approving_and_signing_are_rights_on_the_signer(cluster):
    rules = [
        {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests", "certificatesigningrequests/*"], "verbs": ["*"]}
    ]
    rules[0]["resources"] += ["certificatesigningrequests/approval", "certificatesigningrequests/status"]

    async def scenario():
        from atoll.client.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES

        await cluster.client.create(CLUSTER_ROLES, {"metadata": {"name": "clerk"}, "rules": rules})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "clerk"}
        subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "clerk"}]
        await cluster.client.create(CLUSTER_ROLE_BINDINGS, {"metadata": {"name": "clerk"}, "roleRef": reference, "subjects": subjects})
        clerk = as_user(cluster, "clerk")
        made = await clerk.create(CSRS, manifest(a_request("x")[1], "example.com/own"))
        approved = json.loads(json.dumps(made))
        approved["status"] = {"conditions": [{"type": "Approved", "status": "True", "reason": "x"}]}
        with pytest.raises(StatusError) as told:
            await clerk.update(CSRS, approved, subresource="approval")
        assert 'user not permitted to approve requests with signerName "example.com/own"' in told.value.message
        approved["status"] = {"certificate": base64.b64encode(b"-----BEGIN CERTIFICATE-----").decode()}
        with pytest.raises(StatusError) as told:
            await clerk.update(CSRS, approved, subresource="status")
        assert 'user not permitted to sign requests with signerName "example.com/own"' in told.value.message
        rules.append(
            {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["example.com/*"], "verbs": ["sign"]}
        )
        await cluster.client.update(CLUSTER_ROLES, {"metadata": {"name": "clerk"}, "rules": rules})
        await clerk.update(CSRS, approved, subresource="status")

    cluster.run(scenario())


def test_times_of_requests_and_tokens():
    class Now:
        clock = staticmethod(lambda: 1_000_000.0)

    cleaner = CertificateCleanerController.ends_at
    made = {"metadata": {"creationTimestamp": timestamp_seconds(900_000)}}
    decided = {"type": "Denied", "lastUpdateTime": timestamp_seconds(950_000)}
    assert cleaner(Now, made) == 900_000 + 86_400
    assert cleaner(Now, {**made, "status": {"conditions": [decided]}}) == 950_000 + 3_600
    assert cleaner(Now, {**made, "status": {"conditions": [{**decided, "type": "Approved"}]}}) is None
    token = {"metadata": {"namespace": "kube-system"}, "type": "bootstrap.kubernetes.io/token"}
    assert TokenCleanerController.ends_at(Now, token) is None
    token["data"] = {"expiration": base64.b64encode(b"1970-01-12T13:46:40Z").decode()}
    assert TokenCleanerController.ends_at(Now, token) == 1_000_000


def test_an_expired_token_goes(cluster):
    data = {"token-id": "old123", "token-secret": "0123456789abcdef", "expiration": "2020-01-01T00:00:00Z"}
    secret = {"metadata": {"name": "bootstrap-token-old123"}, "type": "bootstrap.kubernetes.io/token", "stringData": data}
    cluster.run(cluster.client.create(SECRETS, secret, "kube-system"))
    end = time.monotonic() + 5
    while any(one["metadata"]["name"] == secret["metadata"]["name"] for one in cluster.run(cluster.client.list(SECRETS))["items"]):
        assert time.monotonic() < end, "the token is still there"
        time.sleep(0.02)
