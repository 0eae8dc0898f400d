"""hosts and resolv.conf by Docker's rules."""

from __future__ import annotations

import pytest

from atoll.errors import InvalidInput
from atoll.network.files import Resolver, container_servers, host_resolver, hosts_file, parse_resolv_conf, resolv_conf_file


def test_parse():
    text = "# c\nnameserver 10.0.0.1 # why\nnameserver nonsense\nnameserver fe80::1%eth0\n"
    text += "domain old\nsearch a.b c.d\noptions ndots:2\noptions edns0\n"
    assert parse_resolv_conf(text) == Resolver(("10.0.0.1", "fe80::1%eth0"), ("a.b", "c.d"), ("ndots:2", "edns0"))
    assert parse_resolv_conf("") == Resolver()


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        (("127.0.0.53", "10.0.0.1"), ("10.0.0.1",)),
        (("127.0.0.53", "::1"), ("8.8.8.8", "8.8.4.4")),
        ((), ("8.8.8.8", "8.8.4.4")),
    ],
)
def test_loopback_servers_are_not_the_containers(servers, expected):
    assert container_servers(Resolver(servers)) == expected


def test_systemd_resolved_is_seen_through(tmp_path):
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n")
    real.write_text("nameserver 192.0.2.53\n")
    assert host_resolver(stub, real) == Resolver(("192.0.2.53",), ("lan",), ("edns0", "trust-ad"))
    assert host_resolver(stub, tmp_path / "missing").servers == ("127.0.0.53",)
    assert host_resolver(tmp_path / "missing", tmp_path / "missing") == Resolver()


HOST = Resolver(("192.0.2.53",), ("corp.example",), ("timeout:1",))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "nameserver 192.0.2.53\nsearch corp.example\noptions timeout:1\n"),
        ({"embedded": True}, "nameserver 127.0.0.11\nsearch corp.example\noptions timeout:1 ndots:0\n"),
        ({"servers": ["1.1.1.1"], "search": ["."]}, "nameserver 1.1.1.1\noptions timeout:1\n"),
        ({"search": ["x.y"], "options": ["rotate"]}, "nameserver 192.0.2.53\nsearch x.y\noptions rotate\n"),
    ],
)
def test_resolv_conf(asked, expected):
    assert resolv_conf_file(HOST, **asked) == expected


@pytest.mark.parametrize("asked", [{"servers": ["dns.example"]}, {"search": ["a\nnameserver 6.6.6.6"]}, {"options": ["a\nb"]}])
def test_resolv_conf_refuses(asked):
    with pytest.raises(InvalidInput):
        resolv_conf_file(HOST, **asked)


def test_hosts():
    extra = ["db:10.0.0.9", "v6=fd00::9", "host.docker.internal:host-gateway"]
    text = hosts_file("web", ["172.18.0.2", "172.19.0.2"], domainname="lan", extra_hosts=extra, gateway="172.17.0.1")
    assert text.splitlines()[0] == "127.0.0.1\tlocalhost"
    assert text.splitlines()[-5:] == [
        "10.0.0.9\tdb",
        "fd00::9\tv6",
        "172.17.0.1\thost.docker.internal",
        "172.18.0.2\tweb.lan web",
        "172.19.0.2\tweb.lan web",
    ]


@pytest.mark.parametrize("entry", ["db", "db:", ":10.0.0.1", "db:x", "a b:10.0.0.1", "a\n6.6.6.6 bank:10.0.0.1", "gw:host-gateway"])
def test_hosts_refuses(entry):
    with pytest.raises(InvalidInput):
        hosts_file("web", [], extra_hosts=[entry])
