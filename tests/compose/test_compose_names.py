"""Who finds whom: networks, aliases, static addresses, links, and what is cut off."""


def reaches(app, service, url):
    return app.run("exec", "-T", service, "wget", "-T", "2", "-q", "-O", "-", url, check=False).returncode == 0


def addresses(app, service, name):
    """Asked for with a dot at the end: busybox would try it below the search domain alone."""
    return app.exec(service, f"nslookup {name}. | sed -n '/Name:/,$s/^Address: //p'").split()


def test_tiers_on_networks_of_their_own(project):
    app = project("networks")
    app.up()
    proxy = app.inspect("proxy")["NetworkSettings"]["Networks"]
    assert proxy["networks_back"]["IPAddress"] == "10.213.7.10"
    assert proxy["networks_back"]["IPAMConfig"] == {"IPv4Address": "10.213.7.10"}
    assert proxy["networks_front"]["MacAddress"] == "02:42:ac:10:00:05"
    assert set(proxy["networks_front"]["DNSNames"]) >= {"networks-proxy-1", "proxy", "www", "shop.example", "gate"}
    for name in ("www", "shop.example", "proxy", "networks-proxy-1", "gate", "proxy.networks_front"):
        assert addresses(app, "client", name) == [proxy["networks_front"]["IPAddress"]], name
    assert app.exec("client", "nc -w 2 shop 80 < /dev/null; echo $?") == "0\n"  # by the search domain
    assert addresses(app, "proxy", "api") == ["10.213.7.20"]
    assert not reaches(app, "client", "http://app:8000/")
    assert app.run("exec", "-T", "client", "nslookup", "app", check=False).returncode == 1
    assert app.exec("proxy", "nc -w 2 api 8000 < /dev/null; echo $?") == "0\n"
    assert app.exec("proxy", "hostname") == "gate\n"
    assert "printer" in app.exec("client", "grep 10.9.8.7 /etc/hosts")
    assert "host.docker.internal" in app.exec("client", "cat /etc/hosts")
    assert app.exec("client", "cat /sys/class/net/eth0/mtu") == "1400\n"


def test_internal_shared_and_no_network(project):
    app = project("networks")
    app.up()
    assert app.exec("app", "ip route") == "10.213.7.0/24 dev eth0 scope link  src 10.213.7.20 \n"
    assert app.exec("proxy", "ip route | grep -c default") == "1\n"
    assert app.exec("sidecar", "nc -w 2 127.0.0.1 8000 < /dev/null; echo $?") == "0\n"
    assert app.exec("sidecar", "hostname") == app.exec("app", "hostname")
    assert app.exec("loner", "ls /sys/class/net") == "lo\n"
    network = app.engine.client()
    with_containers = network.networks.get("networks_back").attrs
    network.close()
    assert with_containers["Internal"] is True
    assert with_containers["IPAM"]["Config"] == [{"Subnet": "10.213.7.0/24", "IPRange": "10.213.7.128/25", "Gateway": "10.213.7.1"}]
    assert {seat["IPv4Address"] for seat in with_containers["Containers"].values()} == {"10.213.7.10/24", "10.213.7.20/24"}


def test_connect_and_disconnect_while_it_runs(project):
    app = project("networks")
    app.up("client", "app")
    docker = app.engine.docker
    docker("network", "connect", "--alias", "visitor", "--ip", "10.213.7.99", "networks_back", "networks-client-1")
    assert addresses(app, "client", "api") == ["10.213.7.20"]
    assert addresses(app, "app", "visitor") == ["10.213.7.99"]
    assert "10.213.7.99" in app.exec("client", "ip -4 addr show eth1")
    docker("network", "disconnect", "networks_back", "networks-client-1")
    assert app.exec("client", "ls /sys/class/net").split() == ["eth0", "lo"]
    assert app.run("exec", "-T", "app", "nslookup", "visitor", check=False).returncode == 1


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
