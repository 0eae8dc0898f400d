"""A pod's container in the engine's words: environment, users, resources, pulls, who may call the kubelet."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atoll.cluster.pki import Leaf, Pki
from atoll.errors import InvalidInput, NotFound, Unavailable
from atoll.http import Query
from atoll.node.config import NodeConfig
from atoll.node.kubelet_api.logs import LogOptions, file_log
from atoll.node.kubelet_api.server import may_call
from atoll.node.pods import security, users
from atoll.node.pods.env import ConfigError, environment, expand, expand_all, service_variables
from atoll.node.pods.pulls import PullError, Pulls, credentials
from atoll.node.pods.spec import resources


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$(B)", "$(B)"),
        ("$(A", "$(A"),
        ("a$(A)$(A)z", "a11z"),
        ("$", "$"),
        ("$$$(A)", "$1"),
        ("$()", "$()"),
    ],
)
def test_expansion(text: str, shown: str) -> None:
    assert expand(text, {"A": "1"}) == shown


def test_expansions_that_explode() -> None:
    doubling = [{"name": "A0", "value": "xxxxxxxx"}, *({"name": f"A{n}", "value": f"$(A{n - 1})" * 2} for n in range(1, 200))]
    pod = {"metadata": {"namespace": "default"}, "spec": {}}

    def made(variables: list[dict[str, str]]) -> dict[str, str]:
        told = environment(pod, {"env": variables}, fetch=lambda *_: pytest.fail("no reference"), services=(), addresses={}, allocatable={})
        return asyncio.run(told)

    assert len(made(doubling[:14])["A13"]) == 8 << 13
    with pytest.raises(ConfigError, match=r"'\$\(A14\)\$\(A14\)' expands to more than the 131072 bytes"):
        made(doubling)
    with pytest.raises(ConfigError, match="variables come to more than the 6291456 bytes"):
        made([*doubling[:14], *({"name": f"B{n}", "value": "$(A13)"} for n in range(1000))])
    with pytest.raises(ConfigError, match="arguments or variables come to more"):
        expand_all(["$(A)"] * 1000, {"A": "x" * 100_000})
    with pytest.raises(ConfigError, match="expands to more"):
        expand("$(A)" * 100_000, {"A": "x" * 100_000})


def a_service(service: str, namespace: str, address: str, **port: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": service, "namespace": namespace},
        "spec": {"clusterIP": address, "ports": [{"port": 80, "protocol": "TCP", **port}]},
    }


def test_service_variables() -> None:
    services = [
        a_service("kubernetes", "default", "10.96.0.1", name="https"),
        a_service("my-db", "apps", "10.96.0.7"),
        a_service("headless", "apps", "None"),
        a_service("other", "elsewhere", "10.96.0.8"),
    ]
    found = service_variables(services, "apps", links=True)
    assert found["MY_DB_SERVICE_HOST"] == "10.96.0.7"
    assert found["MY_DB_PORT_80_TCP_ADDR"] == "10.96.0.7"
    assert found["KUBERNETES_SERVICE_PORT_HTTPS"] == "80"
    assert not any(name.startswith(("HEADLESS", "OTHER")) for name in found)
    assert set(service_variables(services, "apps", links=False)) == {name for name in found if name.startswith("KUBERNETES")}


class FakeImage:
    def __init__(self, user: str = "", digests: tuple[str, ...] = ()) -> None:
        self.runtime_config = {"User": user}
        self.repo_digests = digests
        self.size = 1
        self.id = "sha256:x"


@pytest.mark.parametrize(
    ("pod", "own", "image", "user"),
    [
        ({}, {}, "app:app", "app:app"),
        ({"runAsUser": 5}, {}, "app", "5"),
        ({"runAsUser": 5}, {"runAsUser": 6, "runAsGroup": 7}, "", "6:7"),
        ({"runAsGroup": 7}, {}, "app:x", "app:7"),
        ({"runAsNonRoot": True}, {}, "1000", "1000"),
    ],
)
def test_user(pod: dict[str, Any], own: dict[str, Any], image: str, user: str) -> None:
    assert security.user_of({"securityContext": pod}, {"name": "c", "securityContext": own}, FakeImage(image)) == user


@pytest.mark.parametrize(("own", "image"), [({}, ""), ({}, "root"), ({"runAsUser": 0}, "1000"), ({}, "app")])
def test_non_root_is_kept(own: dict[str, Any], image: str) -> None:
    with pytest.raises(ConfigError):
        security.user_of({"securityContext": {"runAsNonRoot": True}}, {"name": "c", "securityContext": own}, FakeImage(image))


def test_resources() -> None:
    pod = {"status": {"qosClass": "Burstable"}}
    asked = {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "1500m", "memory": "2Gi"}}
    found = resources(pod, {"resources": asked}, 10 << 30, may_lower_oom=True)
    assert found == {
        "CpuShares": 256,
        "CpuPeriod": 100_000,
        "CpuQuota": 150_000,
        "Memory": 2 << 30,
        "MemorySwap": 2 << 30,
        "OomScoreAdj": 900,
    }
    assert resources({"status": {"qosClass": "Guaranteed"}}, {}, 1, may_lower_oom=False)["OomScoreAdj"] == 0


class FakeStore:
    def __init__(self, present: FakeImage | None, answer: Exception | FakeImage) -> None:
        self.present, self.answer, self.pulled = present, answer, 0

    def find(self, name: str) -> FakeImage | None:
        if name == "BAD NAME":
            raise InvalidInput("bad")
        return self.present

    async def pull(self, name: str, *, auth: Any = None) -> FakeImage:
        self.pulled += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def ensured(store: FakeStore, policy: str, name: str = "app:v1", times: int = 1) -> tuple[Any, list[str]]:
    now = [0.0]
    pulls, events = Pulls(store, lambda: now[0]), []
    result: Any = None
    for _ in range(times):
        try:
            result = asyncio.run(
                pulls.ensure({"image": name, "imagePullPolicy": policy}, [], lambda _kind, reason, _text: events.append(reason))
            )
        except PullError as error:
            result = error.reason
    return result, events


def test_pull_policies() -> None:
    here, registry = FakeImage(digests=("app@sha256:1",)), FakeImage()
    assert ensured(FakeStore(here, registry), "IfNotPresent")[0] is here
    assert ensured(FakeStore(None, registry), "IfNotPresent")[0] is registry
    assert ensured(FakeStore(here, registry), "Always")[0] is registry
    assert ensured(FakeStore(None, registry), "Never")[0] == "ErrImageNeverPull"
    assert ensured(FakeStore(None, registry), "Always", "BAD NAME")[0] == "InvalidImageName"


def test_an_image_made_here_needs_no_registry() -> None:
    made, pulled = FakeImage(), FakeImage(digests=("app@sha256:1",))
    assert ensured(FakeStore(made, NotFound("no")), "Always")[0] is made
    assert ensured(FakeStore(pulled, Unavailable("down")), "Always")[0] is pulled
    assert ensured(FakeStore(pulled, NotFound("gone")), "Always")[0] == "ErrImagePull"


def test_pull_back_off() -> None:
    store = FakeStore(None, NotFound("no"))
    assert ensured(store, "Always", times=2) == ("ImagePullBackOff", ["Pulling", "Failed", "Failed", "BackOff"])
    assert store.pulled == 1


def test_credentials_are_for_their_registry() -> None:
    auths = {
        "https://index.docker.io/v1/": {"auth": base64.b64encode(b"u:p:x").decode()},
        "ghcr.io": {"username": "g", "password": "h"},
    }
    secret = {"data": {".dockerconfigjson": base64.b64encode(json.dumps({"auths": auths}).encode()).decode()}}
    assert credentials("me/app", [secret]) == [{"username": "u", "password": "p:x"}]
    assert credentials("ghcr.io/me/app", [secret]) == [{"username": "g", "password": "h"}]
    assert credentials("quay.io/me/app", [secret]) == [None]
    assert credentials("me/app", [{"data": {".dockerconfigjson": "%%%"}}]) == [None]


def test_who_may_call_a_kubelet(tmp_path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    pki = Pki(tmp_path)

    def der(leaf: Leaf) -> bytes:
        return x509.load_pem_x509_certificate(pki.leaf(leaf)[0].read_bytes()).public_bytes(Encoding.DER)

    assert may_call(der(Leaf("a", "kube-apiserver-kubelet-client", ("system:masters",))))
    assert not may_call(der(Leaf("b", "system:node:x", ("system:nodes",))))
    assert not may_call(der(Leaf("c", "alice", ("developers",))))


@pytest.mark.parametrize("body", [None, [], {}, {"server": 1}])
def test_join_requests_are_checked(body: Any) -> None:
    with pytest.raises(InvalidInput):
        NodeConfig.from_request(body)


def test_log_options() -> None:
    options = LogOptions.parse(Query("follow=true&tailLines=3&sinceTime=2026-01-02T03:04:05.5Z&limitBytes=7"))
    assert (options.follow, options.tail, options.limit) == (True, 3, 7)
    assert options.since_ns == 1_767_323_045_500_000_000
    for wrong in ("tailLines=-1", "limitBytes=0", "sinceTime=yesterday", "sinceSeconds=x"):
        with pytest.raises(InvalidInput):
            LogOptions.parse(Query(wrong))


@pytest.mark.parametrize(
    ("options", "text"), [({}, b"one\ntwo\nthree\n"), ({"tail": 2}, b"two\nthree\n"), ({"tail": 0}, b""), ({"limit": 5}, b"one\nt")]
)
def test_log_of_a_process_of_ours(tmp_path: Path, options: dict[str, int], text: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nthree\n")

    async def read() -> bytes:
        return b"".join([piece async for piece in file_log(path, LogOptions(**options))])

    assert asyncio.run(read()) == text


def test_a_pod_without_the_hosts_users_has_ids_of_its_own():
    def container(uid, mode):
        return SimpleNamespace(labels={"io.kubernetes.pod.uid": uid}, record=SimpleNamespace(host={"UsernsMode": mode}))

    pod = {"metadata": {"uid": "one"}, "spec": {"hostUsers": False}}
    first = users.mode(pod, [])
    base, size = (int(word) for word in first.split(":")[1:])
    assert (size, base % size) == (65536, 0)
    assert base >= size
    assert users.mode(pod, [container("one", first), container("two", "")]) == first
    assert users.mode(pod, [container("two", first)]) == f"map:{base + size}:{size}"
    assert users.mode({"metadata": {"uid": "one"}, "spec": {}}, []) == ""
    assert users.mode({"metadata": {"uid": "one"}, "spec": {"hostUsers": True}}, []) == ""
