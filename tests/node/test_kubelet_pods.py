"""Real pods through a real API server: the kubelet end to end."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request

import pytest

from node_harness import KUBECTL, Cluster, has_phase, is_running, pod, row, waits_for

TOKENS = "/var/run/secrets/kubernetes.io/serviceaccount"


def test_pod_runs_and_answers(cluster: Cluster) -> None:
    cluster.apply(pod("hello", "echo hello from $HOSTNAME; echo oops >&2; sleep 1000"))
    found = cluster.wait("hello", is_running)
    status = found["status"]
    assert status["podIP"].startswith("10.") or status["podIP"].startswith("172.")
    assert {c["type"]: c["status"] for c in status["conditions"]} == dict.fromkeys(
        ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"), "True"
    )
    assert row(found)["containerID"].startswith("atoll://")
    assert cluster.wait_logs("hello", 2) == ["hello from hello", "oops"]
    assert cluster.logs("hello", "--tail=1") == "oops\n"
    assert cluster.logs("hello", "--timestamps", "--tail=1").startswith("20")
    done = cluster.kubectl("exec", "hello", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert done.stderr.startswith("err\n")
    assert cluster.kubectl("exec", "-i", "hello", "--", "cat", stdin="typed").stdout == "typed"
    reasons = cluster.events("hello")
    assert all(word in reasons for word in ("Scheduled", "Pulled", "Created", "Started"))
    assert cluster.kubectl("describe", "pod", "hello").returncode == 0
    cluster.delete("hello")
    assert cluster.get("hello") is None


def test_port_forward(cluster: Cluster) -> None:
    cluster.apply(pod("web", "mkdir /w; echo page > /w/index.html; exec httpd -f -p 8080 -h /w"))
    cluster.wait("web", is_running)
    process = subprocess.Popen([KUBECTL, "port-forward", "web", ":8080"], env=cluster.environ, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().split(":")[1].split()[0]
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                assert answer.read() == b"page\n"
    finally:
        process.terminate()
        process.wait(5)
        process.stdout.close()
    cluster.delete("web")


def test_init_containers_in_order(cluster: Cluster) -> None:
    shared = [{"name": "work", "mountPath": "/work"}]
    init = {"image": "busybox", "imagePullPolicy": "IfNotPresent", "volumeMounts": shared}
    cluster.apply(
        pod(
            "inits",
            "cat /work/log; sleep 1000",
            container={"volumeMounts": shared},
            volumes=[{"name": "work", "emptyDir": {}}],
            initContainers=[
                {**init, "name": "one", "command": ["sh", "-c", "echo one >> /work/log"]},
                {**init, "name": "helper", "restartPolicy": "Always", "command": ["sh", "-c", "echo helper >> /work/log; sleep 1000"]},
                {**init, "name": "two", "command": ["sh", "-c", "sleep 0.3; echo two >> /work/log"]},
            ],
        )
    )
    found = cluster.wait("inits", is_running)
    assert cluster.wait_logs("inits", 3) == ["one", "helper", "two"]
    assert row(found, "one", "initContainerStatuses")["state"]["terminated"]["reason"] == "Completed"
    assert "running" in row(found, "helper", "initContainerStatuses")["state"]
    cluster.delete("inits")


def test_never_restarted_pod_succeeds_or_fails(cluster: Cluster) -> None:
    cluster.apply(
        pod("good", "echo done", restartPolicy="Never"),
        pod("bad", "echo 'last words' > /dev/termination-log; exit 3", restartPolicy="Never"),
    )
    good = cluster.wait("good", has_phase("Succeeded"))
    assert row(good)["state"]["terminated"]["exitCode"] == 0
    bad = cluster.wait("bad", has_phase("Failed"))
    ended = row(bad)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "last words\n")
    assert cluster.logs("good") == "done\n"
    cluster.daemon.docker("container", "prune", "-f")
    cluster.kubectl("label", "pod", "good", "touched=yes")
    time.sleep(0.3)
    assert row(cluster.get("good") or {})["state"]["terminated"]["exitCode"] == 0
    cluster.delete("good")
    cluster.delete("bad")


def test_crash_loop_backs_off(cluster: Cluster) -> None:
    cluster.apply(pod("crash", "echo attempt; exit 1"))
    found = cluster.wait("crash", waits_for("CrashLoopBackOff"))
    status = row(found)
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert "back-off 10s restarting failed container=main pod=crash_default" in status["state"]["waiting"]["message"]
    assert found["status"]["phase"] == "Running"
    assert cluster.logs("crash", "--previous") == "attempt\n"
    cluster.delete("crash")


def test_command_that_is_not_there(cluster: Cluster) -> None:
    cluster.apply(pod("nocmd", ["/no/such"]))
    found = cluster.wait("nocmd", lambda obj: row(obj)["restartCount"] >= 1)
    ended = row(found)["lastState"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 127)
    assert "/no/such" in ended["message"]
    cluster.delete("nocmd")


def test_image_that_is_not_there(cluster: Cluster) -> None:
    cluster.apply(
        pod("noimage", container={"image": "localhost:1/none:v1"}), pod("never", container={"image": "none:v1", "imagePullPolicy": "Never"})
    )
    cluster.wait("noimage", lambda obj: waits_for("ErrImagePull")(obj) or waits_for("ImagePullBackOff")(obj))
    cluster.wait("noimage", waits_for("ImagePullBackOff"))
    cluster.wait("never", waits_for("ErrImageNeverPull"))
    cluster.delete("noimage")
    cluster.delete("never")


def test_environment(cluster: Cluster) -> None:
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "blue", "size": "9"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"password": "s3cret"}},
        pod(
            "env",
            "env; sleep 1000",
            container={
                "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "CM_"}],
                "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
                "env": [
                    {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                    {"name": "JOINED", "value": "$(POD)-$(PASSWORD)-$(NOPE)-$$(POD)"},
                    {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "x", "optional": True}}},
                ],
            },
        ),
        pod("noenv", container={"envFrom": [{"secretRef": {"name": "gone"}}]}),
    )
    found = cluster.wait("env", is_running)
    values = dict(line.split("=", 1) for line in cluster.wait_logs("env", 20) if "=" in line)
    assert values["PASSWORD"] == "s3cret"
    assert (values["CM_colour"], values["CM_size"]) == ("blue", "9")
    assert values["IP"] == found["status"]["podIP"]
    assert values["MEMORY"] == "64"
    assert values["JOINED"] == "env-s3cret-$(NOPE)-$(POD)"
    assert values["KUBERNETES_SERVICE_PORT"] == "443"
    assert "MAYBE" not in values
    waiting = cluster.wait("noenv", waits_for("CreateContainerConfigError"))
    assert row(waiting)["state"]["waiting"]["message"] == 'secret "gone" not found'
    cluster.delete("env")
    cluster.delete("noenv")


def test_config_map_volume_follows_its_object(cluster: Cluster) -> None:
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pages"}, "data": {"a.txt": "first"}},
        pod(
            "files",
            container={
                "volumeMounts": [{"name": "pages", "mountPath": "/pages"}, {"name": "pages", "mountPath": "/one", "subPath": "a.txt"}]
            },
            volumes=[{"name": "pages", "configMap": {"name": "pages", "defaultMode": 0o440}}],
        ),
    )
    cluster.wait("files", is_running)
    script = "cat /pages/a.txt /one; stat -L -c %a /pages/a.txt; ls -a /pages"
    assert cluster.kubectl("exec", "files", "--", "sh", "-c", script).stdout.startswith("firstfirst440\n")
    cluster.kubectl("patch", "configmap", "pages", "-p", json.dumps({"data": {"a.txt": "second", "b.txt": "more"}}))
    end = time.monotonic() + 5
    while (text := cluster.kubectl("exec", "files", "--", "sh", "-c", "cat /pages/*").stdout) != "secondmore":
        assert time.monotonic() < end, text
    cluster.delete("files")


def test_token_reaches_the_api(cluster: Cluster) -> None:
    cluster.apply(pod("token", f"cat {TOKENS}/namespace; echo; cat {TOKENS}/token; echo; sleep 1000"))
    cluster.wait("token", is_running)
    namespace, token = cluster.wait_logs("token", 2)
    assert namespace == "default"
    done = cluster.kubectl(
        "auth",
        "whoami",
        "-o",
        "json",
        f"--token={token}",
        "--kubeconfig=/dev/null",
        f"--server={server(cluster)}",
        "--insecure-skip-tls-verify",
    )
    who = json.loads(done.stdout)["status"]["userInfo"]
    assert who["username"] == "system:serviceaccount:default:default"
    assert who["extra"]["authentication.kubernetes.io/pod-name"] == ["token"]
    cluster.delete("token")


def test_pod_that_comes_before_what_it_needs(cluster: Cluster) -> None:
    cluster.apply(
        pod(
            "early",
            f"cat /late/key; id -u; head -c 2 {TOKENS}/token; echo; sleep 1000",
            securityContext={"runAsUser": 1000},
            container={"volumeMounts": [{"name": "late", "mountPath": "/late"}]},
            volumes=[{"name": "late", "secret": {"secretName": "late"}}],
        )
    )
    end = time.monotonic() + 5
    while 'secret "late" not found' not in (text := cluster.events("early")):
        assert time.monotonic() < end, text
        time.sleep(0.1)
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late"}, "stringData": {"key": "at last\n"}})
    cluster.wait("early", is_running, timeout=3)
    assert cluster.wait_logs("early", 3) == ["at last", "1000", "ey"]
    cluster.delete("early")


def server(cluster: Cluster) -> str:
    return cluster.kubectl("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}").stdout


def test_probes(cluster: Cluster) -> None:
    probe = {"periodSeconds": 1, "failureThreshold": 1}
    cluster.apply(
        pod(
            "live",
            "touch /tmp/ok; trap 'exit 0' TERM; sleep 1000 & wait",
            container={
                "startupProbe": {**probe, "exec": {"command": ["test", "-f", "/tmp/ok"]}, "failureThreshold": 10},
                "livenessProbe": {**probe, "exec": {"command": ["test", "-f", "/tmp/ok"]}},
                "readinessProbe": {**probe, "exec": {"command": ["test", "-f", "/tmp/ready"]}},
            },
        )
    )
    found = cluster.wait("live", lambda obj: row(obj)["started"])
    assert not row(found)["ready"]
    cluster.kubectl("exec", "live", "--", "touch", "/tmp/ready")
    cluster.wait("live", is_running)
    cluster.kubectl("exec", "live", "--", "rm", "/tmp/ok")
    cluster.wait("live", lambda obj: row(obj)["restartCount"] == 1)
    assert "failed liveness probe, will be restarted" in cluster.events("live")
    cluster.delete("live")


def test_hooks_and_grace(cluster: Cluster) -> None:
    wait_forever = "trap 'echo term >> /host/log; exit 0' TERM; while true; do sleep 0.05; done"
    directory = cluster.instance.home / "hooked"
    directory.mkdir()
    cluster.apply(
        pod(
            "hooks",
            wait_forever,
            container={
                "volumeMounts": [{"name": "host", "mountPath": "/host"}],
                "lifecycle": {
                    "postStart": {"exec": {"command": ["sh", "-c", "echo start >> /host/log"]}},
                    "preStop": {"exec": {"command": ["sh", "-c", "echo stop >> /host/log"]}},
                },
            },
            volumes=[{"name": "host", "hostPath": {"path": str(directory), "type": "Directory"}}],
            terminationGracePeriodSeconds=10,
        )
    )
    cluster.wait("hooks", is_running)
    cluster.delete("hooks")
    assert (directory / "log").read_text() == "start\nstop\nterm\n"


def test_grace_ends_in_a_kill(cluster: Cluster) -> None:
    cluster.apply(pod("deaf", "trap '' TERM; sleep 1000", terminationGracePeriodSeconds=1))
    cluster.wait("deaf", is_running)
    began = time.monotonic()
    cluster.delete("deaf")
    assert 0.9 < time.monotonic() - began < 5


def test_security_context(cluster: Cluster) -> None:
    cluster.apply(
        pod(
            "secure",
            "id -u; id -g; id -G; grep NoNewPrivs /proc/self/status; touch /x 2>&1; ls -nd /data; sleep 1000",
            securityContext={"runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456, "supplementalGroups": [4567]},
            container={
                "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            },
            volumes=[{"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        ),
        pod("rootless", securityContext={"runAsNonRoot": True}),
    )
    cluster.wait("secure", is_running)
    lines = cluster.wait_logs("secure", 6)
    assert lines[:2] == ["1234", "2345"]
    assert {"2345", "3456", "4567"} <= set(lines[2].split())
    assert lines[3].split() == ["NoNewPrivs:", "1"]
    assert "Read-only file system" in lines[4]
    assert " 3456 " in lines[5]
    cluster.wait("rootless", waits_for("CreateContainerConfigError"))
    cluster.delete("secure")
    cluster.delete("rootless")


def test_out_of_memory_is_named(cluster: Cluster) -> None:
    cluster.apply(
        pod("hog", "x=a; while true; do x=$x$x; done", restartPolicy="Never", container={"resources": {"limits": {"memory": "16Mi"}}})
    )
    found = cluster.wait("hog", has_phase("Failed"))
    ended = row(found)["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    cluster.delete("hog")


def test_dns_and_services(cluster: Cluster) -> None:
    cluster.apply(
        pod("server", "mkdir /w; echo served > /w/index.html; exec httpd -f -p 80 -h /w", labels={"app": "server"}),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "server"},
            "spec": {"selector": {"app": "server"}, "ports": [{"port": 8000, "targetPort": 80}]},
        },
    )
    cluster.wait("server", is_running)
    cluster.apply(pod("client"))
    cluster.wait("client", is_running)
    end = time.monotonic() + 5
    while True:
        done = cluster.kubectl("exec", "client", "--", "nslookup", "server.default.svc.cluster.local", check=False)
        page = cluster.kubectl(
            "exec", "client", "--", "sh", "-c", "wget -q -O- http://$SERVER_SERVICE_HOST:$SERVER_SERVICE_PORT/", check=False
        )
        if page.stdout == "served\n" and cluster.get("server", "service")["spec"]["clusterIP"] in done.stdout:
            break
        assert time.monotonic() < end, (page.stderr, done.stdout)
    cluster.delete("server")
    cluster.delete("client")


def test_unsupported_volume_says_so(cluster: Cluster) -> None:
    cluster.apply(
        pod(
            "nfs",
            container={"volumeMounts": [{"name": "n", "mountPath": "/n"}]},
            volumes=[{"name": "n", "nfs": {"server": "x", "path": "/"}}],
        )
    )
    end = time.monotonic() + 5
    while "volume type nfs is not supported" not in (text := cluster.events("nfs")):
        assert time.monotonic() < end, text
        time.sleep(0.1)
    assert cluster.get("nfs")["status"]["phase"] == "Pending"
    cluster.delete("nfs")


def test_control_plane_shows_as_mirror_pods(cluster: Cluster) -> None:
    shown = cluster.kubectl("get", "po", "-n", "kube-system", "-l", "component=etcd", "-o", "json")
    (etcd,) = json.loads(shown.stdout)["items"]
    assert is_running(etcd)
    assert etcd["spec"]["containers"][0]["image"].startswith("atoll/sqlite-store:")
    name = etcd["metadata"]["name"]
    assert "control plane is ready" in cluster.kubectl("logs", "-n", "kube-system", name).stdout
    cluster.kubectl("describe", "pod", "-n", "kube-system", name)
    cluster.kubectl("delete", "pod", "-n", "kube-system", name)
    end = time.monotonic() + 5
    while (again := cluster.get(name, namespace="kube-system")) is None or again["metadata"]["uid"] == etcd["metadata"]["uid"]:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_nothing_is_left_of_deleted_pods(cluster: Cluster) -> None:
    left = cluster.kubectl("get", "pods", "-o", "name").stdout.split()
    assert left == []
    cluster.wait_clean()


def test_a_pod_with_an_unsafe_sysctl_is_rejected(cluster: Cluster) -> None:
    context = {"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]}
    cluster.apply(pod("unsafe", "sleep 1000", securityContext=context))
    found = cluster.wait("unsafe", has_phase("Failed"))
    assert found["status"]["reason"] == "SysctlForbidden"
    assert found["status"]["message"] == 'Pod was rejected: forbidden sysctl: "kernel.msgmax" not allowlisted'
    assert "SysctlForbidden" in cluster.events("unsafe")
    cluster.delete("unsafe")


def test_a_pod_with_users_of_its_own(cluster: Cluster) -> None:
    """`hostUsers: false`: root inside is nobody on the host, its volumes are its own all the same, exec and probes work."""
    script = "cat /proc/self/uid_map; id -u; echo data > /data/file; stat -c %u /data/file /etc/hosts; cat /cfg/key; sleep 1000"
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cfg"}, "data": {"key": "value\n"}},
        pod(
            "mapped",
            script,
            hostUsers=False,
            container={
                "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "cfg", "mountPath": "/cfg"}],
                "readinessProbe": {"exec": {"command": ["test", "-s", "/data/file"]}, "periodSeconds": 1},
            },
            volumes=[{"name": "data", "emptyDir": {}}, {"name": "cfg", "configMap": {"name": "cfg"}}],
        ),
    )
    cluster.wait("mapped", is_running)
    uid_map, *lines = cluster.wait_logs("mapped", 5)
    base = int(uid_map.split()[1])
    assert base % 65536 == 0
    assert base > 0
    assert lines == ["0", "0", "0", "value"]
    assert cluster.kubectl("exec", "mapped", "--", "sh", "-c", "id -u; cat /data/file").stdout == "0\ndata\n"
    cluster.wait("mapped", lambda found: row(found)["ready"])
    cluster.delete("mapped")


@pytest.mark.skipif(shutil.which("crun") is None, reason="needs crun (a Debian package)")
def test_a_runtime_class_names_the_runtime(cluster: Cluster) -> None:
    def runtime_class(name: str, handler: str) -> dict[str, object]:
        return {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": handler}

    cluster.apply(runtime_class("light", "crun"), runtime_class("odd", "nosuch"))
    cluster.apply(pod("by-crun", "echo by another; sleep 1000", runtimeClassName="light"), pod("by-none", runtimeClassName="odd"))
    cluster.wait("by-crun", is_running)
    assert cluster.wait_logs("by-crun", 1) == ["by another"]
    assert cluster.kubectl("exec", "by-crun", "--", "hostname").stdout == "by-crun\n"
    identifier = row(cluster.get("by-crun"))["containerID"].removeprefix("atoll://")
    assert (cluster.instance.run / "oci" / "crun" / identifier).exists()
    cluster.wait("by-none", waits_for("CreateContainerConfigError"))
    assert 'no runtime for "nosuch" is configured' in cluster.events("by-none")
    cluster.delete("by-crun")
    cluster.delete("by-none")
    cluster.kubectl("delete", "runtimeclass", "light", "odd")
