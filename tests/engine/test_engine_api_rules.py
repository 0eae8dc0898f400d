"""Rules of the Engine API that clients' own tests rely on: what is filled in, what is refused, in which words, and who wins a race."""

import collections
import concurrent.futures
import time

import docker
import pytest

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def test_swap_is_as_much_as_memory(client):
    container = client.containers.create("busybox", "sleep 600", mem_limit="40m")
    host = client.api.inspect_container(container.id)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (40 << 20, 80 << 20)
    container.start()
    container.update(mem_limit="60m")
    with pytest.raises(docker.errors.APIError, match="update the memoryswap at the same time"):
        container.update(mem_limit="200m")
    container.update(mem_limit="200m", memswap_limit="300m")
    host = client.api.inspect_container(container.id)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (200 << 20, 300 << 20)


def test_a_variable_without_a_value_takes_the_images_away(client, engine):
    engine.docker("build", "-q", "-t", "withenv", "-", input="FROM busybox\nENV GONE=1 STAYS=2\n")
    made = client.api.create_container("withenv", ["env"], environment={"GONE": None, "OTHER": "one", "BLANK": ""})
    assert sorted(client.api.inspect_container(made["Id"])["Config"]["Env"]) == ["BLANK=", "GONE", "OTHER=one", PATH, "STAYS=2"]
    client.api.start(made["Id"])
    client.api.wait(made["Id"])
    seen = client.api.logs(made["Id"]).decode().splitlines()
    assert {"BLANK=", "OTHER=one", "STAYS=2"} <= set(seen)
    assert not [line for line in seen if line.startswith("GONE")]


def test_what_is_not_at_rest_is_not_removed(client):
    def why(container):
        with pytest.raises(docker.errors.APIError) as error:
            container.remove()
        assert error.value.status_code == 409
        return error.value.explanation

    again = client.containers.run("busybox", "true", detach=True, name="again", restart_policy={"Name": "always"})
    end = time.monotonic() + 5
    while (again.reload(), again.status)[1] != "restarting":
        assert time.monotonic() < end
    assert why(again) == 'cannot remove container "/again": container is restarting: stop the container before removing or force remove'
    paused = client.containers.run("busybox", "sleep 600", detach=True, name="still")
    assert why(paused) == 'cannot remove container "/still": container is running: stop the container before removing or force remove'
    paused.pause()
    assert why(paused) == 'cannot remove container "/still": container is paused and must be unpaused first'


def test_an_unknown_log_driver_word_for_word(client):
    with pytest.raises(docker.errors.APIError) as error:
        client.containers.create("busybox", "true", log_config={"type": "asdf-nope", "config": {}})
    assert error.value.explanation == "logger: no log driver named 'asdf-nope' is registered"


def test_link_local_addresses(client):
    config = client.api.create_networking_config({"bridge": client.api.create_endpoint_config(link_local_ips=["169.254.8.8"])})
    made = client.api.create_container("busybox", ["ip", "-4", "addr", "show", "eth0"], networking_config=config)
    client.api.start(made["Id"])
    client.api.wait(made["Id"])
    assert b"169.254.8.8/16" in client.api.logs(made["Id"])
    assert client.api.inspect_container(made["Id"])["NetworkSettings"]["Networks"]["bridge"]["IPAMConfig"]["LinkLocalIPs"] == [
        "169.254.8.8"
    ]
    config = client.api.create_networking_config({"bridge": client.api.create_endpoint_config(link_local_ips=["10.0.0.1"])})
    made = client.api.create_container("busybox", ["true"], networking_config=config)
    with pytest.raises(docker.errors.APIError, match="invalid link-local address"):
        client.api.start(made["Id"])


def test_one_name_has_one_winner(engine):
    clients = [engine.client() for _ in range(20)]

    def create(number):
        try:
            clients[number % 20].api.create_container("busybox", "true", name="wanted")
        except docker.errors.APIError as error:
            return error.status_code, error.explanation.partition(' "')[0]
        return 201, ""

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = collections.Counter(pool.map(create, range(200)))
    for client in clients:
        client.close()
    assert answers == {(201, ""): 1, (409, "Conflict. The container name"): 199}


def test_the_three_conditions_of_wait(engine):
    clients = [engine.client() for _ in range(3)]
    api = clients[0].api
    made = api.create_container("busybox", ["sh", "-c", "sleep 0.3; exit 3"])["Id"]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waits = [
            pool.submit(client.api.wait, made, 10, condition)
            for client, condition in zip(clients[1:], ("next-exit", "removed"), strict=True)
        ]
        time.sleep(0.1)
        assert api.wait(made) == {"StatusCode": 0}  # it does not run: that is all "not-running" asks
        api.start(made)
        assert api.wait(made) == {"StatusCode": 3}
        assert waits[0].result(5) == {"StatusCode": 3}
        assert not waits[1].done()
        api.remove_container(made)
        assert waits[1].result(5) == {"StatusCode": 3}
    for client in clients:
        client.close()


def test_every_change_of_a_containers_state_is_told(client):
    begun = time.time()
    network = client.networks.create("told", labels={"k": "v"})
    container = client.containers.create(
        "busybox", "sleep 600", name="told", labels={"l": "1"}, healthcheck={"test": ["CMD", "true"], "interval": 50_000_000}
    )
    container.start()
    network.connect(container)
    end = time.monotonic() + 5
    while client.api.inspect_container(container.id)["State"]["Health"]["Status"] != "healthy":
        assert time.monotonic() < end
    container.pause()
    container.unpause()
    container.exec_run("true")
    container.update(mem_limit="50m")
    container.rename("renamed")
    container.kill("WINCH")
    container.restart(timeout=0)
    b"".join(container.export())
    container.put_archive("/", b"\0" * 1024)
    container.get_archive("/etc/passwd")
    container.top()
    container.stop(timeout=0)
    container.remove()
    network.remove()
    events = list(client.events(since=begun, until=time.time(), decode=True, filters={"type": ["container", "network"]}))
    told = [event["Action"].partition(":")[0] for event in events]
    assert [action for action in told if action not in ("kill", "health_status")] == [
        *(
            "create",
            "create",
            "connect",
            "start",
            "connect",
            "pause",
            "unpause",
            "exec_create",
            "exec_start",
            "exec_die",
            "update",
            "rename",
        ),
        *("disconnect", "disconnect", "die", "stop", "connect", "connect", "start", "restart"),
        *("export", "extract-to-dir", "archive-path", "top", "disconnect", "disconnect", "die", "stop", "destroy", "destroy"),
    ]
    of_container = [event["Actor"]["Attributes"] for event in events if event["Type"] == "container"]
    assert {(one["l"], one["image"]) for one in of_container} == {("1", "busybox")}
    assert {one["name"] for one in of_container} == {"told", "renamed"}
    assert all(event["timeNano"] // 10**9 == event["time"] for event in events)


def test_links_on_the_default_bridge(client):
    shop = client.containers.run(
        "busybox", "sleep 600", detach=True, name="shop", init=True, ports={"5432/tcp": None}, environment={"A": "1"}
    )
    made = client.api.create_container("busybox", ["env"], name="web", host_config=client.api.create_host_config(links={"shop": "my-db"}))
    names = {name for row in client.api.containers(all=True) for name in row["Names"]}
    assert names == {"/shop", "/web", "/web/my-db"}
    client.api.start(made["Id"])
    client.api.wait(made["Id"])
    seen = dict(line.partition("=")[::2] for line in client.api.logs(made["Id"]).decode().splitlines())
    shop.reload()
    address = shop.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert {name: value for name, value in seen.items() if name.startswith("MY_DB")} == {
        "MY_DB_NAME": "/web/my-db",
        "MY_DB_PORT": f"tcp://{address}:5432",
        "MY_DB_PORT_5432_TCP": f"tcp://{address}:5432",
        "MY_DB_PORT_5432_TCP_ADDR": address,
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_ENV_A": "1",
    }
    client.api.remove_container("web/my-db", link=True)
    assert {name for row in client.api.containers(all=True) for name in row["Names"]} == {"/shop", "/web"}
    for wrong in ("web/my-db", "web/other"):
        with pytest.raises(docker.errors.NotFound):
            client.api.remove_container(wrong, link=True)


def test_following_a_log_ends_where_nothing_more_is_wanted(client):
    talking = client.containers.run("busybox", ["sh", "-c", "while true; do echo x; sleep 0.05; done"], detach=True, init=True)
    begun = time.monotonic()
    assert b"x\n" in b"".join(talking.logs(stream=True, follow=True, until=time.time() + 0.5))
    assert 0.4 < time.monotonic() - begun < 5
    silent = client.containers.run("busybox", ["sleep", "600"], detach=True, init=True)
    assert b"".join(silent.logs(stream=True, follow=True, until=1)) == b""


def test_a_network_of_a_container_that_is_not_there(engine):
    done = engine.docker("run", "--rm", "--network", "container:absent", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "Unable to find image" not in done.stderr
    assert "No such container: absent" in done.stderr


def test_volumes_tell_who_mounts_them(client):
    begun = time.time()
    container = client.containers.run("busybox", "true", detach=True, volumes=["told-of:/v:ro"])
    container.wait()
    events = client.events(since=begun, until=time.time(), decode=True, filters={"volume": "told-of"})
    told = [(event["Action"], event["Actor"]["Attributes"]) for event in events]
    mounted = {"destination": "/v", "propagation": "", "read/write": "false"}
    assert told == [
        ("create", {"driver": "local"}),
        ("mount", {"container": container.id, "driver": "local", **mounted}),
        ("unmount", {"container": container.id, "driver": "local"}),
    ]
    container.remove()
    client.volumes.get("told-of").remove()
