"""Examples of the docker CLI's reference pages whose outcome is easily got wrong: run, exec, logs, cp, events, stats, inspect and ps."""

import json
import os
import re
import time
import urllib.request

import pytest

from atoll.kernel.cgroups import Cgroup, Layout


def run(engine, name, *args):
    """A container that stays up."""
    words = args if "busybox" in args else (*args, "busybox", "sleep", "1000")
    return engine.docker("run", "-d", "--init", "--name", name, *words).stdout.strip()


def test_attached_by_its_input_alone(engine):
    done = engine.docker("run", "-a", "stdin", "-i", "--name", "eater", "busybox", "cat", "-", input="eaten\n", timeout=10)
    assert done.stdout == ""
    assert engine.docker("logs", "eater").stdout == "eaten\n"
    assert engine.docker("run", "--rm", "-a", "stdin", "-a", "stdout", "-i", "busybox", "cat", "-", input="x\n").stdout == "x\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--storage-opt", "size=120G"), "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"),
        (("--isolation", "hyperv"), "invalid isolation 'hyperv' on linux"),
        (("--log-driver", "fluentd"), "no log driver named 'fluentd' is registered"),
        (("--network", "nosuch"), "network nosuch not found"),
        (("--pull", "never", "--name", "x1", "nosuchimage"), "No such image: nosuchimage:latest"),
        (
            ("--network", "name=given,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.ip_forward=1"),
            "'net.ipv4.ip_forward=1' is not net.<ipv4|ipv6|mpls>.<conf|neigh>.IFNAME.<name>=<value>",
        ),
    ],
)
def test_run_refuses(engine, given, options, message):
    done = engine.docker("run", "--rm", *options, "busybox", "true", check=False)
    assert done.returncode == 125
    assert message in done.stderr


@pytest.fixture(scope="module")
def given(engine):
    """A network with a subnet that a user chose."""
    engine.docker("network", "create", "--subnet", "10.214.8.0/24", "given")
    yield
    engine.docker("network", "rm", "given")


def test_run_on_a_network_with_settings_of_its_interface(engine, given):
    sysctls = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0"
    wanted = f'name=given,ip=10.214.8.75,alias=seventyfive,"driver-opt=com.docker.network.endpoint.sysctls={sysctls}"'
    run(engine, "tuned", "--network", wanted)
    read = "cat /proc/sys/net/ipv4/conf/eth0/log_martians /proc/sys/net/ipv4/conf/eth0/forwarding"
    assert engine.docker("exec", "tuned", "sh", "-c", read).stdout == "1\n0\n"
    seat = json.loads(engine.docker("inspect", "-f", '{{json (index .NetworkSettings.Networks "given")}}', "tuned").stdout)
    assert seat["IPAddress"] == "10.214.8.75"
    assert list(seat["DriverOpts"]) == ["com.docker.network.endpoint.sysctls"]
    assert seat["DNSNames"][:2] == ["tuned", "seventyfive"]


@pytest.mark.skipif(not os.path.exists("/proc/sys/net/ipv6"), reason="this kernel has no IPv6")
def test_run_on_a_network_with_ipv6(engine):
    engine.docker("network", "create", "--ipv6", "--subnet", "fd00:8:77::/64", "six")
    options = ("--network", "six", "--ip6", "fd00:8:77::33", "-p", "80")
    server = "echo served > /tmp/index.html; exec httpd -f -h /tmp -p [::]:80"
    run(engine, "sixth", *options, "--sysctl", "net.ipv6.conf.all.hop_limit=77", "busybox", "sh", "-c", server)
    asked = (
        "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}} {{.IPv6Gateway}} {{json .IPAMConfig}}{{end}}"
    )
    shown = 'fd00:8:77::33/64 fd00:8:77::1 {"IPv6Address":"fd00:8:77::33"}\n'
    assert engine.docker("inspect", "-f", asked, "sixth").stdout == shown
    assert re.search(r"^fd00:8:77::33\t\w+$", engine.docker("exec", "sixth", "cat", "/etc/hosts").stdout, re.MULTILINE)
    assert engine.docker("exec", "sixth", "cat", "/proc/sys/net/ipv6/conf/all/hop_limit").stdout == "77\n"
    fetched = engine.docker(
        "run", "--rm", "--network", "six", "busybox", "sh", "-c", "nslookup -type=aaaa sixth; wget -qO - [fd00:8:77::33]"
    )
    assert "Address: fd00:8:77::33" in fetched.stdout
    assert fetched.stdout.endswith("served\n")
    port = engine.docker("port", "sixth", "80").stdout.rpartition(":")[2].strip()
    with urllib.request.urlopen(f"http://[::1]:{port}", timeout=5) as answer:
        assert answer.read() == b"served\n"
    assert engine.docker("network", "inspect", "-f", "{{.EnableIPv6}} {{len .IPAM.Config}}", "six").stdout == "true 2\n"
    assert "six" in engine.docker("network", "ls", "--format", "{{if eq .IPv6 `true`}}{{.Name}}{{end}}").stdout.split()
    done = engine.docker("run", "--rm", "--network", "bridge", "--ip6", "fd00::5", "busybox", "true", check=False)
    assert "user specified IP address is supported on user defined networks only" in done.stderr
    engine.docker("rm", "-f", "sixth")
    engine.docker("network", "rm", "six")


def test_run_link_on_the_default_bridge_and_on_another(engine, given):
    run(engine, "linked")
    hosts = engine.docker("run", "--rm", "--link", "linked:other", "busybox", "cat", "/etc/hosts").stdout
    address = engine.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "linked").stdout.strip()
    assert {line.split()[1] for line in hosts.splitlines() if line.startswith(address)} >= {"other", "linked"}
    engine.docker("network", "connect", "given", "linked")
    asked = engine.docker("run", "--rm", "--network", "given", "--link", "linked:other", "busybox", "nslookup", "other").stdout
    assert "Address: 10.214.8." in asked


def test_run_below_a_cgroup_of_the_users(engine):
    parent = Cgroup(Layout.discover(), f"/given-{engine.instance.id}")
    name = parent.path.removeprefix("/")  # a relative one is taken from the top, too
    identity = run(engine, "below", "--cgroup-parent", name, "-m", "64m")
    group = Cgroup(parent.layout, f"{parent.path}/{identity}")
    assert len(group.pids()) == 2
    assert group.stats()["memory"]["limit"] == 64 << 20
    assert engine.docker("exec", "below", "sh", "-c", "sort -u -t: -k3 /proc/self/cgroup | cut -d: -f3").stdout == "/\n"
    assert engine.docker("inspect", "-f", "{{.HostConfig.CgroupParent}}", "below").stdout == f"{name}\n"
    engine.docker("rm", "-f", "below")
    assert not any(os.path.exists(directory) for _, directory in group.directories())
    assert parent.remove()  # as in Docker, it stays


def test_init_hides_what_it_is_made_of(engine):
    run(engine, "withinit", "--init")
    assert engine.docker("exec", "withinit", "cat", "/proc/1/comm").stdout == "docker-init\n"
    rows = engine.docker("top", "withinit", "-o", "pid,args").stdout.splitlines()[1:]
    assert [row.split(None, 1)[1] for row in rows] == ["/sbin/docker-init -- sleep 1000", "sleep 1000"]


def test_logs_details_since_and_tail(engine):
    chosen = (
        "--label",
        "colour=dark blue",
        "-e",
        "DEPTH=3",
        "--log-opt",
        "labels=colour",
        "--log-opt",
        "env=DEPTH",
        "--log-opt",
        "tag={{.Name}}",
    )
    engine.docker("run", "--name", "chatty", *chosen, "busybox", "sh", "-c", "echo one; echo two")
    prefix = "DEPTH=3,colour=dark+blue,tag=chatty"
    assert engine.docker("logs", "--details", "chatty").stdout == f"{prefix} one\n{prefix} two\n"
    last = engine.docker("logs", "--details", "-t", "-n", "1", "chatty").stdout
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{9}}Z {re.escape(prefix)} two\n", last)
    assert engine.docker("logs", "--since", "2013-01-02T13:23:37Z", "--tail", "1", "chatty").stdout == "two\n"
    assert engine.docker("logs", "--until", "1h", "chatty").stdout == ""
    engine.docker("run", "--name", "plain", "busybox", "echo", "x")
    assert engine.docker("logs", "--details", "plain").stdout == " x\n"


def test_ps_filters(engine):
    run(engine, "first", "-l", "colour=blue", "-p", "127.0.0.1::80", "-v", "/named", "--health-cmd", "true", "--health-interval", "100ms")
    engine.docker("run", "--name", "second", "busybox", "sh", "-c", "exit 9", check=False)
    run(engine, "third", "-l", "colour=red", "--expose", "3000-3001/udp")
    end = time.monotonic() + 5
    while not engine.docker("ps", "-q", "-f", "health=healthy").stdout:
        assert time.monotonic() < end

    def names(*filters):
        words = [word for given in filters for word in ("-f", given)]
        return set(engine.docker("ps", "-a", "--format", "{{.Names}}", *words).stdout.split())

    port = engine.docker("port", "first", "80").stdout.strip().rpartition(":")[2]
    assert names("label=colour") == {"first", "third"}
    assert names("label=colour=red", "status=running") == {"third"}
    assert names("exited=9") == names("status=exited") == {"second"}
    assert names("before=second") == {"first"}
    assert names("since=second") == {"third"}
    assert names("volume=/named") == names(f"publish={port}") == names("health=healthy") == {"first"}
    assert names("expose=3000-3001/udp") == {"third"}
    assert names("name=ir", "network=bridge") == {"first", "third"}
    assert names("ancestor=busybox:latest") == {"first", "second", "third"}
    assert names("is-task=true") == set()
    for wrong in ("bogus=1", "status=foo", "publish=70000"):
        assert "invalid filter" in engine.docker("ps", "-f", wrong, check=False).stderr


def test_formats(engine):
    run(engine, "shown", "-l", "colour=blue", "-p", "127.0.0.1:18743:80")
    row = json.loads(engine.docker("ps", "--format", "json").stdout)
    assert (row["Names"], row["Ports"], row["Labels"], row["State"], row["Networks"]) == (
        "shown",
        "127.0.0.1:18743->80/tcp",
        "colour=blue",
        "running",
        "bridge",
    )
    inspected = "{{range $p, $conf := .NetworkSettings.Ports}}{{$p}} -> {{(index $conf 0).HostPort}}{{end}}"
    assert engine.docker("inspect", "--format", inspected, "shown").stdout == "80/tcp -> 18743\n"
    stats = json.loads(engine.docker("stats", "--no-stream", "--format", "json", "shown").stdout)
    assert (stats["Name"], stats["PIDs"]) == ("shown", "2")
    assert engine.docker("inspect", "--type", "volume", "shown", check=False).returncode == 1


def test_events_replayed_with_filters(engine):
    begun = time.time()
    run(engine, "told", "-l", "colour=blue")
    engine.docker("stop", "-t", "0", "told")
    shown = ("events", "--since", f"{begun:.9f}", "--until", f"{time.time():.9f}", "--filter", "container=told")
    assert engine.docker(*shown, "--format", "{{.Action}}").stdout.split() == ["create", "start", "kill", "die", "stop"]
    died = json.loads(engine.docker(*shown, "--format", "json", "--filter", "event=die").stdout)
    attributes = died["Actor"]["Attributes"]
    assert (attributes["exitCode"], attributes["colour"], attributes["image"], attributes["name"]) == ("137", "blue", "busybox", "told")
    assert engine.docker(*shown, "--filter", "type=network", "--format", "{{.Action}}").stdout == ""


def test_a_restarting_container_never_looks_new(engine):
    engine.docker("run", "-d", "--name", "again", "--restart", "always", "busybox", "true")
    end = time.monotonic() + 1
    seen = set()
    while time.monotonic() < end:
        seen.add(engine.docker("ps", "-a", "--format", "{{.State}}").stdout.strip())
    assert seen <= {"running", "restarting"}
