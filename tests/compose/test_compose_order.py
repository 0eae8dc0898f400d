"""Who starts after whom, who comes back, and how many."""

import time


def wait_for(what, timeout=10):
    end = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.05)


def test_conditions_order_the_start(project):
    app = project("conditions")
    app.up()
    store, migrate, begun = (app.inspect(name) for name in ("store", "migrate", "app"))
    assert store["State"]["Health"]["Status"] == "healthy"
    healthy = store["State"]["Health"]["Log"][-1]
    assert (healthy["ExitCode"], healthy["Output"]) == (0, "")
    assert migrate["State"]["ExitCode"] == 0
    assert store["State"]["StartedAt"] < migrate["State"]["StartedAt"] < migrate["State"]["FinishedAt"] < begun["State"]["StartedAt"]
    assert app("logs", "--no-log-prefix", "app") == "v2\n"
    assert "metrics" not in str(app.containers())
    app("restart", "-t", "0", "store")  # `restart: true` takes the app along
    assert app.inspect("app")["State"]["StartedAt"] > begun["State"]["StartedAt"]


def test_a_dependency_that_is_unhealthy_fails_the_up(project):
    app = project("conditions")
    done = app.run("--profile", "broken", "up", "-d", "waiting", check=False)
    assert done.returncode == 1
    assert "dependency failed to start: container conditions-broken-1 is unhealthy" in done.stderr
    assert app.inspect("waiting")["State"]["Status"] == "created"


def test_restart_policies(project):
    app = project("restart")
    app("up", "-d")
    wait_for(lambda: app.inspect("failing")["RestartCount"] == 2 and app.inspect("failing")["State"]["Status"] == "exited")
    wait_for(lambda: app.inspect("always")["RestartCount"] >= 2)
    assert app.inspect("once")["State"]["ExitCode"] == 4
    assert app.inspect("once")["RestartCount"] == 0
    assert app("logs", "--no-log-prefix", "failing") == "tried\n" * 3
    assert app.containers()["restart-always-1"]["State"] in {"running", "restarting"}
    app("stop", "kept", "always")  # by its own stop signal
    assert app.inspect("kept")["State"]["ExitCode"] == 128 + 10
    assert app.inspect("always")["State"]["Status"] == "exited"
    assert app.inspect("always")["State"]["Restarting"] is False


def test_scale_up_and_down(project):
    app = project("scale")
    app.up()
    assert set(app.containers()) == {"scale-worker-1", "scale-worker-2", "scale-asker-1"}
    found = set(app.exec("asker", "nslookup worker | grep -A99 Name: | grep Address").split()) - {"Address:"}
    networks = [app.inspect("worker", number)["NetworkSettings"]["Networks"]["scale_default"] for number in (1, 2)]
    assert found == {network["IPAddress"] for network in networks}
    host = app.inspect("worker")["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (500_000_000, 32 << 20, 50)
    answers = {app.exec("asker", f"nc scale-worker-{number} 7000 < /dev/null").strip() for number in (1, 2)}
    assert answers == {app.inspect("worker", number)["Config"]["Hostname"] for number in (1, 2)}
    app("scale", "worker=3")
    assert app("ps", "-q", "worker").count("\n") == 3
    app("up", "-d", "--scale", "worker=1")
    assert set(app.containers()) == {"scale-worker-1", "scale-asker-1"}
