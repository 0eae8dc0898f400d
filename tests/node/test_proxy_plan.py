"""The plan as a pure function, and the transactions between two plans."""

from __future__ import annotations

import pytest

from atoll.node.proxy import plan
from atoll.node.proxy.ruleset import Ruleset, difference


def service(name="web", cluster_ip="10.96.0.20", ports=({"port": 80},), **spec):
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"clusterIP": cluster_ip, "ports": list(ports), **spec}}


def endpoint(address, node="n1", **conditions):
    return {"addresses": [address], "nodeName": node, "conditions": conditions or {"ready": True}}


def slice_(*endpoints, name="web", port=8080, port_name="", protocol="TCP", kind="IPv4"):
    return {
        "metadata": {"name": f"{name}-x", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": kind,
        "ports": [{"name": port_name, "port": port, "protocol": protocol}],
        "endpoints": list(endpoints),
    }


CHAIN = "svc/default/web/tcp/80"


def test_cluster_ip():
    one = plan([service()], [slice_(endpoint("10.1.0.2"))])
    assert one.elements["services", "10.96.0.20 . tcp . 80"] == f"goto {CHAIN}"
    assert one.chains == {CHAIN: ("meta l4proto tcp dnat to 10.1.0.2:8080",)}
    two = plan([service()], [slice_(endpoint("10.1.0.3"), endpoint("10.1.0.2"))])
    assert two.chains == {CHAIN: ("meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.1.0.2 . 8080, 1 : 10.1.0.3 . 8080 }",)}


def test_slices_that_overlap_count_once():
    ruleset = plan([service()], [slice_(endpoint("10.1.0.2")), slice_(endpoint("10.1.0.2"))])
    assert ruleset.chains[CHAIN] == ("meta l4proto tcp dnat to 10.1.0.2:8080",)


def test_ports_are_matched_by_name_and_protocol():
    web = service(ports=[{"port": 80, "name": "http"}, {"port": 53, "name": "dns", "protocol": "UDP"}, {"port": 7, "protocol": "SCTP"}])
    ruleset = plan(
        [web], [slice_(endpoint("10.1.0.2"), port_name="http"), slice_(endpoint("10.1.0.2"), port_name="dns", protocol="UDP", port=5353)]
    )
    assert ruleset.chains["svc/default/web/udp/53"] == ("meta l4proto udp dnat to 10.1.0.2:5353",)
    assert ruleset.udp == {("10.96.0.20", 53): frozenset({("10.1.0.2", 5353)})}
    assert not any("sctp" in key for _name, key in ruleset.elements)


def test_without_backends_callers_are_refused():
    ruleset = plan([service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}])], [])
    assert ruleset.elements["refused", "10.96.0.20 . tcp . 80"] == ""
    assert ruleset.elements["refused_nodeports", "tcp . 30080"] == ""
    assert ruleset.chains == {}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([{}, {"ready": False}], ["10.1.0.2"]),  # absent means ready
        ([{"ready": False}, {"ready": False, "serving": True, "terminating": True}], ["10.1.0.3"]),
        ([{"ready": True}, {"ready": False, "serving": True, "terminating": True}], ["10.1.0.2"]),
        ([{"ready": False, "serving": False}, {"ready": False}], []),
    ],
)
def test_conditions(conditions, expected):
    endpoints = [{"addresses": [f"10.1.0.{number}"], "conditions": found} for number, found in enumerate(conditions, 2)]
    rules = "".join(plan([service()], [slice_(*endpoints)]).chains.get(CHAIN, ()))
    assert [address for address in ("10.1.0.2", "10.1.0.3") if address in rules] == expected


@pytest.mark.parametrize(
    "other",
    [
        service(cluster_ip="None"),
        service(type="ExternalName", cluster_ip=""),
        service(cluster_ip="fd00::1"),
        service(name='x"; flush ruleset; #'),
        {"metadata": {"name": "bare", "namespace": "default"}},
    ],
)
def test_what_is_not_for_a_proxy(other):
    assert plan([other], [slice_(endpoint("10.1.0.2"))]) == Ruleset()


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "1.2.3", "fd00::1", "10.0.0.1; drop", ""])
def test_addresses_that_no_service_may_lead_to(address):
    assert plan([service()], [slice_(endpoint(address))]).chains == {}


def test_traffic_policies():
    web = service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}], externalTrafficPolicy="Local")
    here, there = endpoint("10.1.0.2", "n1"), endpoint("10.2.0.2", "n2")
    ruleset = plan([web], [slice_(here, there)], node_name="n1")
    assert "mod 2" in ruleset.chains[CHAIN][0]
    assert ruleset.chains["ext/default/web/tcp/80"] == ("meta l4proto tcp dnat to 10.1.0.2:8080",)
    assert ruleset.chains["in/default/web/tcp/80"] == ("goto ext/default/web/tcp/80",)  # the caller's address is kept
    assert plan([web], [slice_(there)], node_name="n1").elements["refused_nodeports", "tcp . 30080"] == ""
    cluster = plan([service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}])], [slice_(here, there)], node_name="n1")
    assert cluster.chains["in/default/web/tcp/80"] == ("jump take_node_address", f"goto {CHAIN}")
    internal = plan([service(internalTrafficPolicy="Local")], [slice_(there)], node_name="n1")
    assert internal.elements["refused", "10.96.0.20 . tcp . 80"] == ""


def test_external_addresses_and_source_ranges():
    web = service(type="LoadBalancer", externalIPs=["198.51.100.1"], loadBalancerSourceRanges=["10.0.0.0/8", " 192.0.2.7/32"])
    web["status"] = {"loadBalancer": {"ingress": [{"ip": "198.51.100.2"}, {"hostname": "lb.example.org"}]}}
    ruleset = plan([web], [slice_(endpoint("10.1.0.2"))])
    for address in ("198.51.100.1", "198.51.100.2"):
        assert ruleset.elements["services", f"{address} . tcp . 80"] == "goto in/default/web/tcp/80"
    assert ruleset.chains["in/default/web/tcp/80"][0] == "ip saddr != { 10.0.0.0/8, 192.0.2.7/32 } drop"


def test_affinity_gives_each_backend_a_memory():
    web = service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}})
    ruleset = plan([web], [slice_(endpoint("10.1.0.2"), endpoint("10.1.0.3"))])
    assert len(ruleset.sets) == 2
    assert all("timeout 60s" in definition for definition in ruleset.sets.values())
    assert len(ruleset.chains[CHAIN]) == 3
    longer = plan([service(sessionAffinity="ClientIP")], [slice_(endpoint("10.1.0.2"))])
    assert all("timeout 10800s" in definition for definition in longer.sets.values())
    assert not set(longer.sets) & set(ruleset.sets)  # another timeout is another set


def test_two_services_with_one_node_port():
    first = service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}])
    second = service("other", "10.96.0.21", type="NodePort", ports=[{"port": 80, "nodePort": 30080}])
    ruleset = plan([first, second], [slice_(endpoint("10.1.0.2")), slice_(endpoint("10.1.0.3"), name="other")])
    assert ruleset.elements["nodeports", "tcp . 30080"] == "goto in/default/web/tcp/80"


def test_nothing_changed_is_no_transaction():
    ruleset = plan([service()], [slice_(endpoint("10.1.0.2"))])
    assert difference("t", ruleset, plan([service()], [slice_(endpoint("10.1.0.2"))])) == ""


def test_a_changed_backend_touches_one_chain():
    before = plan([service(), service("other", "10.96.0.21")], [slice_(endpoint("10.1.0.2"))])
    after = plan([service(), service("other", "10.96.0.21")], [slice_(endpoint("10.1.0.3"))])
    assert difference("t", before, after).splitlines() == [
        f"flush chain ip t {CHAIN}",
        f"add rule ip t {CHAIN} meta l4proto tcp dnat to 10.1.0.3:8080",
    ]
