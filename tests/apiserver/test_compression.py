"""Answers of 128 KiB and more in gzip, for those who accept it."""

from __future__ import annotations

import gzip
import json
import re
import ssl
from urllib.request import Request, urlopen

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl
from isal import igzip

from atoll.client.resources import CONFIG_MAPS

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    large = {"metadata": {"name": "large"}, "data": {"a": "x" * 200_000}}
    cluster.run(cluster.client.create(CONFIG_MAPS, large, "default"))
    cluster.run(cluster.client.create(CONFIG_MAPS, {"metadata": {"name": "small"}}, "default"))
    cluster.admin()
    yield cluster
    cluster.close()


def get(cluster, path, accepted, **headers):
    """Headers and body, as they come."""
    context = ssl.create_default_context(cafile=cluster.home / "ca.crt")
    context.load_cert_chain(cluster.home / "admin.crt", cluster.home / "admin.key")
    asked = Request(cluster.url + path, headers={**({"Accept-Encoding": accepted} if accepted else {}), **headers})
    with urlopen(asked, context=context, timeout=10) as answer:
        return answer.headers, answer.read()


def at_no_revision(body):
    """Controllers write between two answers: a list then has another revision."""
    return re.sub(rb'resourceVersion"?: ?"\d+"', b"", body)


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        (MAPS, "application/json"),
        (f"{MAPS}/large", "application/json"),
        (f"{MAPS}?includeObject=Object", "application/json;as=Table;g=meta.k8s.io;v=v1"),
        (MAPS, "application/yaml"),
        ("/openapi/v2", "application/json"),
        ("/openapi/v3/api/v1", "application/json"),
    ],
)
def test_large_answers(cluster, path, accept):
    plain, body = get(cluster, path, "", Accept=accept)
    assert plain["content-encoding"] is None
    headers, packed = get(cluster, path, "deflate, gzip;q=1.0", Accept=accept)
    assert headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in headers.get_all("vary")
    assert headers["content-type"] == plain["content-type"]
    assert int(headers["content-length"]) == len(packed) < len(body) / 2
    assert at_no_revision(gzip.decompress(packed)) == at_no_revision(body)


@pytest.mark.parametrize(
    ("path", "accepted"),
    [(f"{MAPS}/small", "gzip"), (f"{MAPS}/large", "identity"), (f"{MAPS}/large", "gzip;q=0"), (f"{MAPS}/large", "gzip;q=0.0, br")],
)
def test_others_stay_as_they_are(cluster, path, accepted):
    headers, body = get(cluster, path, accepted)
    assert headers["content-encoding"] is None
    assert json.loads(body)["kind"] == "ConfigMap"


def test_kubectl_reads_them(cluster, monkeypatch):
    kubectl = Kubectl(KUBECTLS[-1], cluster.admin())
    packed = []

    def counted(body, level):
        packed.append(len(body))
        return compress(body, level)

    compress = igzip.compress
    monkeypatch.setattr(igzip, "compress", counted)
    query = ("get", "configmap", "large", "-o", "jsonpath={.data.a}")
    assert len(kubectl(*query)) == 200_000
    assert len(packed) == 1
    assert len(kubectl(*query, "--disable-compression")) == 200_000
    assert len(packed) == 1
