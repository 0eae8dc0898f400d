"""Who asks: OpenID Connect issuers over TLS, proxies that vouch for others, the anonymous, tokens and what takes them away."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import ssl
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from apiserver_tools import STATIC_TOKEN, Cluster, Pki
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from atoll.apiserver.auth import settings
from atoll.apiserver.auth.jwks import KeySet
from atoll.apiserver.auth.settings import AuthenticationSettings
from atoll.client.resources import PODS, SECRETS, SERVICE_ACCOUNTS, Resource
from atoll.errors import InvalidInput, Unauthenticated

WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", False, "TokenReview")


def encoded(data):
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value):
    return encoded(value.to_bytes((value.bit_length() + 7) // 8))


class Provider:
    """An OpenID Connect provider on loopback: discovery, keys, and tokens of any claims."""

    def __init__(self, home):
        self.keys = {"rsa": rsa.generate_private_key(65537, 2048), "ec": ec.generate_private_key(ec.SECP256R1())}
        self.published = ["rsa"]
        self.asked = []
        outer = self

        class Pages(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                pages = {"/.well-known/openid-configuration": {"issuer": outer.url, "jwks_uri": f"{outer.url}/keys"}, "/keys": outer.jwks()}
                body = json.dumps(pages[self.path]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(home / "server.crt", home / "server.key")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def jwks(self):
        found = []
        for name in self.published:
            numbers = self.keys[name].public_key().public_numbers()
            if name == "rsa":
                found.append({"kty": "RSA", "kid": name, "use": "sig", "n": number(numbers.n), "e": number(numbers.e)})
            else:
                found.append({"kty": "EC", "kid": name, "crv": "P-256", "x": number(numbers.x), "y": number(numbers.y)})
        return {"keys": found}

    def token(self, key="rsa", algorithm=None, **claims):
        now = int(time.time())
        claims = {"iss": self.url, "aud": "atoll", "sub": "1", "iat": now, "exp": now + 300, **claims}
        header = {"alg": algorithm or {"rsa": "RS256", "ec": "ES256"}[key], "kid": key}
        text = f"{encoded(header)}.{encoded(claims)}"
        if key == "rsa":
            signature = self.keys[key].sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        else:
            r, s = decode_dss_signature(self.keys[key].sign(text.encode(), ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32) + s.to_bytes(32)
        return f"{text}.{encoded(signature)}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Setting(Cluster):
    """A cluster with an issuer, a front proxy, and anonymity for health alone."""

    def __init__(self, home):
        pki = Pki(home)
        self.provider = Provider(home)
        proxies = home / "proxies"
        proxies.mkdir()
        self.proxies = Pki(proxies)
        self.proxies.issue("proxy", "front-proxy-client")
        self.proxies.issue("stranger", "stranger", "system:masters")
        settings = {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AuthenticationConfiguration",
            "anonymous": {"enabled": True, "conditions": [{"path": "/livez"}]},
            "jwt": [
                {
                    "issuer": {"url": self.provider.url, "audiences": ["atoll"], "certificateAuthority": (home / "ca.crt").read_text()},
                    "claimMappings": {
                        "username": {"claim": "email", "prefix": "oidc:"},
                        "groups": {"claim": "roles", "prefix": "oidc:"},
                        "uid": {"claim": "sub"},
                        "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}],
                    },
                    "claimValidationRules": [
                        {"claim": "hd", "requiredValue": "example.com"},
                        {"expression": "claims.exp - claims.iat <= 3600", "message": "too long a life"},
                    ],
                    "userValidationRules": [{"expression": "!user.username.endsWith('@evil.com')", "message": "no evil"}],
                }
            ],
        }
        (home / "authentication.yaml").write_text(json.dumps(settings))
        config = replace(
            pki.config(),
            authentication=home / "authentication.yaml",
            front_proxy_ca=proxies / "ca.crt",
            front_proxy_names=("front-proxy-client",),
        )
        super().__init__(home, pki, config)

    def ask(self, *, token=None, headers=None, certificate=None, path=WHO):
        context = ssl.create_default_context(cafile=self.home / "ca.crt")
        if certificate:
            context.load_cert_chain(f"{certificate}.crt", f"{certificate}.key")
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=10)
        sent = {"Content-Type": "application/json", **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        with contextlib.closing(connection):
            connection.request("POST" if path == WHO else "GET", path, b"{}" if path == WHO else None, sent)
            answer = connection.getresponse()
            body = answer.read()
        return answer.status, json.loads(body)["status"]["userInfo"] if answer.status == 201 else body

    def close(self):
        super().close()
        self.provider.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Setting(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


GOOD = {"email": "ann@example.com", "roles": ["dev"], "hd": "example.com", "tenant": "t1", "jti": "j"}


def test_a_user_of_an_issuer(cluster):
    status, user = cluster.ask(token=cluster.provider.token(**GOOD))
    assert status == 201
    assert user["username"] == "oidc:ann@example.com"
    assert user["groups"] == ["oidc:dev", "system:authenticated"]
    assert user["uid"] == "1"
    assert user["extra"] == {"example.com/tenant": ["t1"], "authentication.kubernetes.io/credential-id": ["JTI=j"]}
    cluster.ask(token=cluster.provider.token(**GOOD))
    assert len(cluster.provider.asked) == 2  # discovery and keys, once


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "other"},
        {"exp": 1},
        {"nbf": 1 << 40},
        {"hd": "other"},
        {"email": ""},
        {"email_verified": False},
        {"email": "x@evil.com"},
        {"exp": int(time.time()) + 100_000},
        {"iss": "https://127.0.0.1:1"},
        {"roles": 7},
    ],
)
def test_what_makes_a_token_bad(cluster, claims):
    assert cluster.ask(token=cluster.provider.token(**{**GOOD, **claims}))[0] == 401


def test_signatures(cluster):
    provider = cluster.provider
    token = provider.token(**GOOD)
    head, claims, signature = token.split(".")
    none = encoded({"alg": "none"})
    public = provider.keys["rsa"].public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    import hmac

    symmetric = f"{encoded({'alg': 'HS256', 'kid': 'rsa'})}.{claims}"
    forged = encoded(hmac.digest(public, symmetric.encode(), "sha256"))
    other = f"{head}.{encoded({'iss': provider.url})}.{signature}"
    for bad in (f"{none}.{claims}.", f"{symmetric}.{forged}", other, f"{head}.{claims}.AAAA"):
        assert cluster.ask(token=bad)[0] == 401
    assert cluster.ask(token="x" * 20_000 + ".y.z")[0] in (401, 431)
    assert cluster.ask(token=provider.token("ec", **GOOD))[0] == 401  # not published yet
    keys = KeySet.parse(json.dumps({**provider.jwks(), "x": 1}).encode())
    with pytest.raises(Unauthenticated):
        keys.verify(provider.token("ec"))
    provider.published.append("ec")
    assert KeySet.parse(json.dumps(provider.jwks()).encode()).verify(provider.token("ec"))["sub"] == "1"
    with pytest.raises(Unauthenticated):
        KeySet.parse(json.dumps(provider.jwks()).encode()).verify(provider.token("rsa", algorithm="RS512"))


def test_anonymous_only_where_it_is_said(cluster):
    assert cluster.ask(path="/livez")[0] == 200
    assert cluster.ask(path="/version")[0] == 401


def test_a_front_proxy_speaks_for_others(cluster):
    home = cluster.home
    headers = {"X-Remote-User": "bob", "X-Remote-Group": "team", "X-Remote-Extra-Example.com%2fa": "b", "X-Remote-Uid": "7"}
    status, user = cluster.ask(certificate=home / "proxies/proxy", headers=headers)
    assert status == 201
    expected = {"username": "bob", "uid": "7", "groups": ["team", "system:authenticated"], "extra": {"example.com/a": ["b"]}}
    assert user == expected
    assert cluster.ask(certificate=home / "proxies/proxy")[0] == 401  # it is nobody itself
    assert cluster.ask(certificate=home / "proxies/stranger", headers=headers)[0] == 401
    cluster.pki.issue("carl", "carl")
    assert cluster.ask(certificate=home / "carl", headers=headers)[1]["username"] == "carl"


def test_static_tokens_and_impersonating_the_anonymous(cluster):
    assert cluster.ask(token=STATIC_TOKEN)[1]["username"] == "system:bootstrap:abcdef"
    cluster.pki.issue("admin", "admin", "system:masters")
    asked = {"certificate": cluster.home / "admin", "headers": {"Impersonate-User": "system:anonymous"}}
    assert cluster.ask(path="/version", **asked)[0] == 200  # by its group, system:unauthenticated
    assert cluster.ask(path="/metrics", **asked)[0] == 403


def test_a_token_dies_with_what_it_is_bound_to(cluster):
    run, client = cluster.run, cluster.client

    def request(kind, name, uid, **spec):
        reference = {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}
        body = {"spec": {"boundObjectRef": reference, **spec}}
        return run(client.create(SERVICE_ACCOUNTS, body, "default", name="robot", subresource="token"))["status"]["token"]

    run(client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "robot"}}, "default"))
    spec = {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]}
    pod = run(client.create(PODS, {"metadata": {"name": "p"}, "spec": spec}, "default"))
    secret = run(client.create(SECRETS, {"metadata": {"name": "s"}}, "default"))
    by_pod = request("Pod", "p", pod["metadata"]["uid"])
    by_secret = request("Secret", "s", secret["metadata"]["uid"])
    elsewhere = request("Pod", "p", pod["metadata"]["uid"], audiences=["vault"])
    status, user = cluster.ask(token=by_pod)
    assert status == 201
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == ["p"]
    assert cluster.ask(token=by_secret)[0] == 201
    assert cluster.ask(token=elsewhere)[0] == 401
    review = run(client.create(TOKEN_REVIEWS, {"spec": {"token": elsewhere, "audiences": ["vault", "other"]}}))
    assert (review["status"]["authenticated"], review["status"]["audiences"]) == (True, ["vault"])
    review = run(client.create(TOKEN_REVIEWS, {"spec": {"token": cluster.provider.token(**GOOD)}}))
    assert review["status"]["user"]["username"] == "oidc:ann@example.com"
    review = run(client.create(TOKEN_REVIEWS, {"spec": {"token": STATIC_TOKEN, "audiences": ["vault"]}}))
    assert not review["status"].get("authenticated")
    run(client.delete(PODS, "p", "default", grace_seconds=0))
    run(client.delete(SECRETS, "s", "default"))
    assert cluster.ask(token=by_pod)[0] == 401
    assert cluster.ask(token=by_secret)[0] == 401


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("x: [", "while parsing"),
        ("{}", "expected an AuthenticationConfiguration"),
        ('{issuer: {url: "http://x", audiences: [a]}}', "its URL must be an https one"),
        ('{issuer: {url: "https://x"}}', "issuer.audiences must not be empty"),
        ('{issuer: {url: "https://x", audiences: [a]}}', "claimMappings.username needs a claim or an expression"),
        ('{issuer: {url: "https://x", audiences: [a]}, claimMappings: {username: {claim: sub}}}', "need a prefix"),
        ('{issuer: {url: "https://x", audiences: [a]}, claimMappings: {username: {expression: "claims."}}}', "ERROR"),
    ],
)
def test_a_configuration_that_cannot_be(tmp_path, content, why):
    path = tmp_path / "a.yaml"
    head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: "
    path.write_text(f"{head}[{content}]" if "issuer" in content else content)
    with pytest.raises(InvalidInput, match=why) as told:
        AuthenticationSettings.load(path, time.time)
    assert str(path) in str(told.value)


def test_a_configuration_is_read_again_when_it_has_changed(tmp_path, caplog):
    path = tmp_path / "authentication.yaml"
    text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: %s}\n"
    path.write_text(text % "true")

    async def scenario():
        used = []
        following = asyncio.create_task(settings.follow(path, settings.state(path), time.time, used.append, every=0.005))

        async def until(condition):
            async with asyncio.timeout(10):
                while not condition():  # noqa: ASYNC110  # a file tells nobody
                    await asyncio.sleep(0.005)

        def replace(content):
            made = tmp_path / "new"
            made.write_text(content)
            made.rename(path)

        replace(text % "false")
        await until(lambda: used)
        replace("kind: Nonsense\n")
        await until(lambda: "stays as it was" in caplog.text)
        path.unlink()
        await until(lambda: caplog.text.count("stays as it was") == 2)
        replace(text % "true")
        await until(lambda: len(used) == 2)
        following.cancel()
        return [each.anonymous for each in used]

    assert asyncio.run(scenario()) == [(), None]
