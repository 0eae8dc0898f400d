"""[sig-auth] Certificates, service accounts and their tokens, access reviews."""

import base64
import datetime as dt
import json

import pytest
from conformance_api import Refused, until
from conformance_operations import check_discovery
from conformance_plane import HOLD, PLAYED
from conformance_workloads import pod_spec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from atoll.client.resources import CERTIFICATE_SIGNING_REQUESTS, CONFIG_MAPS, PODS, SERVICE_ACCOUNTS, SUBJECT_ACCESS_REVIEWS, Resource

TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", False, "TokenReview")
LOCAL_REVIEWS = Resource("authorization.k8s.io", "v1", "localsubjectaccessreviews", True, "LocalSubjectAccessReview")


def condition(kind):
    return {"type": kind, "status": "True", "reason": "E2E", "message": "Set from an e2e test"}


@pytest.mark.conformance("[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations [Conformance]")
def test_certificate_requests(api):
    requests = api.at(CERTIFICATE_SIGNING_REQUESTS)
    assert check_discovery(api, CERTIFICATE_SIGNING_REQUESTS) == {"approval", "status"}
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "e2e-example")])
    pem = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    spec = {"request": base64.b64encode(pem).decode(), "signerName": "example.com/e2e", "usages": ["digital signature", "client auth"]}
    label = {"labels": {"e2e": "csr"}, "spec": spec}
    made = [requests.new(metadata={"generateName": "e2e-example-csr-"}, **label) for _ in range(3)]
    name = made[0]["metadata"]["name"]
    selector = {"labelSelector": "e2e=csr"}
    assert len(requests.items(**selector)) == 3
    with requests.watch(resourceVersion=made[-1]["metadata"]["resourceVersion"], **selector) as watch:
        patched = requests.patch(name, {"metadata": {"annotations": {"patched": "true"}}})
        assert patched["metadata"]["annotations"]["patched"] == "true"
        updated = requests.change(name, lambda found: found["metadata"]["annotations"].update(updated="true"))
        assert updated["metadata"]["annotations"]["updated"] == "true"
        watch.expect("MODIFIED", lambda found: found["metadata"]["annotations"].get("updated") == "true")
        assert requests.get(name, "approval")["metadata"]["uid"] == made[0]["metadata"]["uid"]
        patch = {"metadata": {"annotations": {"patchedapproval": "true"}}, "status": {"conditions": [condition("ApprovalPatch")]}}
        approved = requests.patch(name, patch, sub="approval")
        assert [each["type"] for each in approved["status"]["conditions"]] == ["ApprovalPatch"]
        assert approved["metadata"]["annotations"]["patchedapproval"] == "true"
        updated = requests.change(name, lambda found: found["status"]["conditions"].append(condition("Approved")), "approval")
        assert [each["type"] for each in updated["status"]["conditions"]] == ["ApprovalPatch", "Approved"]
        assert requests.get(name, "status")["metadata"]["uid"] == made[0]["metadata"]["uid"]
        key = rsa.generate_private_key(65537, 2048)
        own = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        own = own.serial_number(1).not_valid_before(_day(1)).not_valid_after(_day(2)).sign(key, hashes.SHA256())
        certificate = base64.b64encode(own.public_bytes(serialization.Encoding.PEM)).decode()
        patch = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"certificate": certificate}}
        signed = requests.patch(name, patch, sub="status")
        assert (signed["status"]["certificate"], signed["metadata"]["annotations"]["patchedstatus"]) == (certificate, "true")
        updated = requests.change(name, lambda found: found["status"]["conditions"].append(condition("StatusUpdate")), "status")
        assert updated["status"]["conditions"][-1]["type"] == "StatusUpdate"
    requests.delete(name)
    assert requests.gone(name)
    requests.delete_all(**selector)
    assert requests.items(**selector) == []


def _day(number):
    return dt.datetime(2030, 1, number, tzinfo=dt.UTC)


@pytest.mark.conformance(
    "[sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer [Conformance]"
)
def test_a_token_is_verified_by_what_its_issuer_publishes(api, ns):
    accounts = api.at(SERVICE_ACCOUNTS, ns)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["oidc-discovery-test"]}}
    token = api.call("POST", accounts.path("default", "token"), asked)["status"]["token"]
    reader = api.as_bearer(api.call("POST", accounts.path("default", "token"), {**asked, "spec": {}})["status"]["token"])
    published = reader.get("/.well-known/openid-configuration")
    claims = json.loads(_decoded(token.split(".")[1]))
    assert published["issuer"] == claims["iss"]
    assert claims["aud"] == ["oidc-discovery-test"]
    header = json.loads(_decoded(token.split(".")[0]))
    assert header["alg"] in published["id_token_signing_alg_values_supported"]
    answer = reader.request("GET", "/openid/v1/jwks", accept="application/jwk-set+json")
    assert answer.headers["Content-Type"] == "application/jwk-set+json"
    key = next(each for each in answer.json()["keys"] if each["kid"] == header["kid"])
    _verify(key, token)
    reader.close()


def _decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _verify(key, token):
    """Raises InvalidSignature."""
    body, _, signature = token.rpartition(".")
    numbers = {name: int.from_bytes(_decoded(value), "big") for name, value in key.items() if name in "nexy"}
    if key["kty"] == "RSA":
        public = rsa.RSAPublicNumbers(numbers["e"], numbers["n"]).public_key()
        public.verify(_decoded(signature), body.encode(), padding.PKCS1v15(), hashes.SHA256())
        return
    raw = _decoded(signature)
    pair = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    public = ec.EllipticCurvePublicNumbers(numbers["x"], numbers["y"], ec.SECP256R1()).public_key()
    public.verify(pair, body.encode(), ec.ECDSA(hashes.SHA256()))


@pytest.mark.conformance("[sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace [Conformance]")
def test_every_namespace_has_the_root_certificate(api, ns):
    maps = api.at(CONFIG_MAPS, ns)
    until(lambda: not maps.gone("kube-root-ca.crt"), "the root certificate is there")
    assert maps.get("kube-root-ca.crt")["data"]["ca.crt"].encode().strip() == api.ca.strip()
    maps.delete("kube-root-ca.crt")
    until(lambda: not maps.gone("kube-root-ca.crt"), "it comes back")
    maps.change("kube-root-ca.crt", lambda found: found.update(data={"ca.crt": ""}))
    maps.until("kube-root-ca.crt", lambda found: found["data"] == {"ca.crt": api.ca.decode()})


MOUNTS = [  # the service account's wish, the pod's, whether a token is mounted
    (None, None, True),
    (True, None, True),
    (False, None, False),
    (None, True, True),
    (True, True, True),
    (False, True, True),
    (None, False, False),
    (True, False, False),
    (False, False, False),
]


@pytest.mark.conformance("[sig-auth] ServiceAccounts should allow opting out of API token automount [Conformance]")
def test_tokens_are_mounted_where_they_are_wanted(api, ns):
    accounts, pods = api.at(SERVICE_ACCOUNTS, ns), api.at(PODS, ns)
    accounts.new("mount", automountServiceAccountToken=True)
    accounts.new("nomount", automountServiceAccountToken=False)
    account_names = {None: "default", True: "mount", False: "nomount"}
    for number, (account, pod, expected) in enumerate(MOUNTS):
        wish = {} if pod is None else {"automountServiceAccountToken": pod}
        made = pods.new(f"pod-{number}", annotations={PLAYED: HOLD}, spec=pod_spec(serviceAccountName=account_names[account], **wish))
        mounts = made["spec"]["containers"][0].get("volumeMounts") or []
        paths = [each["mountPath"] for each in mounts]
        assert ("/var/run/secrets/kubernetes.io/serviceaccount" in paths) is expected, (account, pod)


@pytest.mark.conformance("[sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount [Conformance]")
def test_the_life_of_a_service_account(api, ns):
    accounts = api.at(SERVICE_ACCOUNTS, ns)
    with accounts.watch(labelSelector="test-serviceaccount-static=true") as watch:
        accounts.new("testserviceaccount", labels={"test-serviceaccount-static": "true"})
        watch.expect("ADDED")
        accounts.patch("testserviceaccount", {"automountServiceAccountToken": False}, "strategic")
        watch.expect("MODIFIED", lambda found: found["automountServiceAccountToken"] is False)
        assert "testserviceaccount" in api.at(SERVICE_ACCOUNTS).names(labelSelector="test-serviceaccount-static=true")
        accounts.delete_all(labelSelector="test-serviceaccount-static=true")
        watch.expect("DELETED")


@pytest.mark.conformance("[sig-auth] ServiceAccounts should update a ServiceAccount [Conformance]")
def test_a_service_account_is_updated(api, ns):
    accounts = api.at(SERVICE_ACCOUNTS, ns)
    made = accounts.new("e2e-sa", automountServiceAccountToken=False)
    assert made["automountServiceAccountToken"] is False
    accounts.change("e2e-sa", lambda found: found.update(automountServiceAccountToken=True))
    assert accounts.get("e2e-sa")["automountServiceAccountToken"] is True


@pytest.mark.conformance("[sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview [Conformance]")
def test_a_token_is_reviewed(api, ns):
    accounts = api.at(SERVICE_ACCOUNTS, ns)
    made = accounts.new("e2e-sa")
    token = api.call("POST", accounts.path("e2e-sa", "token"), {"spec": {"expirationSeconds": 3600}})["status"]["token"]
    review = api.at(TOKEN_REVIEWS)
    status = review.create(review.make(spec={"token": token}))["status"]
    assert status["authenticated"] is True
    assert not status.get("error")
    assert status["user"]["username"] == f"system:serviceaccount:{ns}:e2e-sa"
    assert status["user"]["uid"] == made["metadata"]["uid"]
    assert set(status["user"]["groups"]) == {"system:serviceaccounts", f"system:serviceaccounts:{ns}", "system:authenticated"}


@pytest.mark.conformance("[sig-auth] SubjectReview should support SubjectReview API operations [Conformance]")
def test_access_is_reviewed(api, ns):
    api.at(SERVICE_ACCOUNTS, ns).new("e2e")
    attributes = {"group": "apps", "namespace": ns, "resource": "deployments", "verb": "list", "version": "v1"}
    user = f"system:serviceaccount:{ns}:e2e"
    for resource, space in ((SUBJECT_ACCESS_REVIEWS, None), (LOCAL_REVIEWS, ns)):
        door = api.at(resource, space)
        status = door.create(door.make(spec={"resourceAttributes": attributes, "user": user}))["status"]
        assert status["allowed"] is False
        assert not status.get("denied")
    with pytest.raises(Refused) as refused:
        door.create(door.make(spec={"resourceAttributes": {**attributes, "namespace": "other"}, "user": user}))
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")
