"""Who finds whom: networks, aliases, static addresses, links, and what is cut off."""

import json

import pytest


@pytest.fixture(scope="module")
def tiers(module_project):
    made = module_project("networks")
    made.up()
    return made


def addresses(app, service, *names):
    """Asked for with a dot at the end: busybox would try them below the search domain alone."""
    return app.exec(service, f"for n in {' '.join(names)}; do nslookup $n. | sed -n '/Name:/,$s/^Address: //p'; done").split()


def test_tiers_on_networks_of_their_own(tiers):
    proxy = tiers.inspect("proxy")["NetworkSettings"]["Networks"]
    assert proxy["networks_back"]["IPAddress"] == "10.213.7.10"
    assert proxy["networks_back"]["IPAMConfig"] == {"IPv4Address": "10.213.7.10"}
    assert proxy["networks_front"]["MacAddress"] == "02:42:ac:10:00:05"
    assert set(proxy["networks_front"]["DNSNames"]) >= {"networks-proxy-1", "proxy", "www", "shop.example", "gate"}
    known = ["www", "shop.example", "proxy", "networks-proxy-1", "gate", "proxy.networks_front"]
    assert addresses(tiers, "client", *known) == [proxy["networks_front"]["IPAddress"]] * len(known)
    assert tiers.exec("client", "nc -w 2 shop 80 < /dev/null; echo $?") == "0\n"  # by the search domain
    assert addresses(tiers, "proxy", "api") == ["10.213.7.20"]
    assert tiers.exec("client", "nslookup app. > /dev/null || echo unknown; nc -w 1 10.213.7.20 8000 || echo unreachable").split()[-2:] == [
        "unknown",
        "unreachable",
    ]
    assert tiers.exec("proxy", "nc -w 2 api 8000 < /dev/null; echo $?") == "0\n"
    assert tiers.exec("proxy", "hostname") == "gate\n"
    assert "printer" in tiers.exec("client", "grep 10.9.8.7 /etc/hosts")
    assert "host.docker.internal" in tiers.exec("client", "cat /etc/hosts")
    assert tiers.exec("client", "cat /sys/class/net/eth0/mtu") == "1400\n"


def test_internal_shared_and_no_network(tiers):
    assert tiers.exec("app", "ip route") == "10.213.7.0/24 dev eth0 scope link  src 10.213.7.20 \n"
    assert tiers.exec("proxy", "ip route | grep -c default") == "1\n"
    assert tiers.exec("sidecar", "nc -w 2 127.0.0.1 8000 < /dev/null; echo $?") == "0\n"
    assert tiers.exec("sidecar", "hostname") == tiers.exec("app", "hostname")
    assert tiers.exec("loner", "ls /sys/class/net") == "lo\n"
    network = json.loads(tiers.engine.docker("network", "inspect", "networks_back").stdout)[0]
    assert network["Internal"] is True
    assert network["IPAM"]["Config"] == [{"Subnet": "10.213.7.0/24", "IPRange": "10.213.7.128/25", "Gateway": "10.213.7.1"}]
    assert {seat["IPv4Address"] for seat in network["Containers"].values()} == {"10.213.7.10/24", "10.213.7.20/24"}


def test_connect_and_disconnect_while_it_runs(tiers):
    docker = tiers.engine.docker
    docker("network", "connect", "--alias", "visitor", "--ip", "10.213.7.99", "networks_back", "networks-client-1")
    assert addresses(tiers, "client", "api") == ["10.213.7.20"]
    assert addresses(tiers, "app", "visitor") == ["10.213.7.99"]
    assert "10.213.7.99" in tiers.exec("client", "ip -4 addr show eth1")
    docker("network", "disconnect", "networks_back", "networks-client-1")
    assert tiers.exec("client", "ls /sys/class/net").split() == ["eth0", "lo"]
    assert tiers.run("exec", "-T", "app", "nslookup", "visitor", check=False).returncode == 1


def test_links(project, engine):
    app = project("links")
    engine.docker("run", "-d", "--init", "--name", "corpus-neighbour", "busybox", "nc", "-ll", "-p", "80", "-e", "echo", "next door")
    try:
        app.up()
        for name in ("database", "db", "corpus-db"):
            assert app.exec("web", f"nc {name} 5432 < /dev/null") == "linked\n"
        assert app.run("exec", "-T", "db", "nslookup", "database", check=False).returncode == 1  # a link is the linker's alone
        engine.docker("network", "connect", "links_default", "corpus-neighbour")
        assert app.exec("web", "nc neighbour 80 < /dev/null") == "next door\n"
    finally:
        engine.docker("rm", "-f", "corpus-neighbour")
