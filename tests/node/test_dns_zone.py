"""Names of the cluster, by the Kubernetes DNS specification."""

from __future__ import annotations

import pytest

from atoll.errors import InvalidInput
from atoll.network.files import Resolver
from atoll.node.dns import Zone, pod_resolv_conf, resolve
from atoll.node.dns.zone import Answer


def service(name, cluster_ip="10.96.0.20", **spec):
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"clusterIP": cluster_ip, **spec}}


def slice_(name, *endpoints, ports=()):
    labels = {"kubernetes.io/service-name": name}
    return {
        "metadata": {"name": f"{name}-x", "namespace": "default", "labels": labels},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": list(ports),
    }


@pytest.fixture
def zone():
    http = {"name": "http", "port": 80}
    return Zone.build(
        [
            service("web", ports=[http, {"port": 53, "protocol": "UDP", "name": "dns"}]),
            service("db", "None"),
            service("docs", "", type="ExternalName", externalName="Docs.Example.org"),
            service("early", "None", publishNotReadyAddresses=True),
            service("bad_name!"),
        ],
        [
            slice_("web", {"addresses": ["10.1.0.9"]}, ports=[http]),
            slice_(
                "db",
                {"addresses": ["10.1.0.2"], "hostname": "db-0"},
                {"addresses": ["10.1.0.3"], "hostname": "db-1", "conditions": {"ready": True}},
                {"addresses": ["10.1.0.4"], "conditions": {}},
                {"addresses": ["10.1.0.5"], "conditions": {"ready": False}},
                ports=[{"name": "sql", "port": 5432, "protocol": "TCP"}],
            ),
            slice_("early", {"addresses": ["10.1.0.6"], "conditions": {"ready": False}}),
        ],
    )


WEB, DB = "web.default.svc.cluster.local", "db.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (WEB, "A", {"10.96.0.20"}),
        (WEB, "AAAA", set()),
        (f"_http._tcp.{WEB}", "SRV", {f"0 100 80 {WEB}."}),
        (f"_dns._udp.{WEB}", "SRV", {f"0 100 53 {WEB}."}),
        (DB, "A", {"10.1.0.2", "10.1.0.3", "10.1.0.4"}),
        (f"db-0.{DB}", "A", {"10.1.0.2"}),
        (f"10-1-0-4.{DB}", "A", {"10.1.0.4"}),
        (f"_sql._tcp.{DB}", "SRV", {f"0 100 5432 db-0.{DB}.", f"0 100 5432 db-1.{DB}.", f"0 100 5432 10-1-0-4.{DB}."}),
        ("early.default.svc.cluster.local", "A", {"10.1.0.6"}),
        ("docs.default.svc.cluster.local", "CNAME", {"docs.example.org."}),
        ("10-1-0-2.default.pod.cluster.local", "A", {"10.1.0.2"}),
        ("dns-version.cluster.local", "TXT", {'"1.1.0"'}),
        ("svc.cluster.local", "A", set()),  # empty non-terminal
        ("default.svc.cluster.local", "A", set()),
        ("cluster.local", "A", set()),
        ("20.0.96.10.in-addr.arpa", "PTR", {f"{WEB}."}),
        ("2.0.1.10.in-addr.arpa", "PTR", {f"db-0.{DB}."}),
    ],
)
def test_names(zone, name, kind, expected):
    answer = resolve(zone, name, kind)
    assert answer.exists
    assert set(answer.data) == expected


@pytest.mark.parametrize(
    "name",
    [
        "nothing.default.svc.cluster.local",
        f"db-9.{DB}",
        f"10-1-0-5.{DB}",
        "300-1-0-2.default.pod.cluster.local",
        "web.cluster.local",
        "bad_name!.default.svc.cluster.local",
    ],
)
def test_no_such_name(zone, name):
    assert resolve(zone, name, "A") == Answer(exists=False)


@pytest.mark.parametrize("name", ["example.org", "cluster.local.example.org", "notcluster.local", "local", ""])
def test_not_ours(zone, name):
    assert resolve(zone, name, "A") is None


def test_pointers_of_others_go_upstream(zone):
    assert resolve(zone, "8.8.8.8.in-addr.arpa", "PTR") is None


NDOTS_2, NDOTS_1 = {"name": "ndots", "value": "2"}, {"name": "ndots", "value": "1"}
SEARCH = "search red.svc.cluster.local svc.cluster.local cluster.local corp.example\n"
HOST = Resolver(("192.0.2.53",), ("corp.example",), ("timeout:1",))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {},
            "nameserver 10.96.0.10\n" + SEARCH + "options ndots:5\n",
        ),
        ({"dnsPolicy": "Default"}, "nameserver 192.0.2.53\nsearch corp.example\noptions timeout:1\n"),
        ({"hostNetwork": True}, "nameserver 192.0.2.53\nsearch corp.example\noptions timeout:1\n"),
        (
            {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
            "nameserver 10.96.0.10\n" + SEARCH + "options ndots:5\n",
        ),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {
                    "nameservers": ["1.1.1.1"],
                    "searches": ["my.dns"],
                    "options": [NDOTS_2, {"name": "edns0"}],
                },
            },
            "nameserver 1.1.1.1\nsearch my.dns\noptions ndots:2 edns0\n",
        ),
        (
            {"dnsConfig": {"nameservers": ["1.1.1.1"], "options": [NDOTS_1]}},
            "nameserver 10.96.0.10\nnameserver 1.1.1.1\n" + SEARCH + "options ndots:1\n",
        ),
    ],
)
def test_pod_resolv_conf(spec, expected):
    assert pod_resolv_conf(spec, "red", cluster_dns=["10.96.0.10"], host=HOST) == expected


def test_pod_resolv_conf_refuses_what_is_no_address():
    with pytest.raises(InvalidInput):
        pod_resolv_conf({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["x\nnameserver 6.6.6.6"]}}, "red", cluster_dns=[], host=HOST)
