"""The book's road through a cluster, by the genuine kubectl, on real pods."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from cluster_harness import KUBECTLS

PATIENCE_S = 60
WEB = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: web}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: busybox
          imagePullPolicy: IfNotPresent
          command: [sh, -c, "echo serving; exec httpd -f -p 8080 -h /data"]
          ports: [{containerPort: 8080}]
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: web}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: %d}]}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {run: %s}}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers: [{name: main, image: busybox, imagePullPolicy: IfNotPresent, command: %s}]
"""


def pod(name, *command):
    return POD % (name, name, json.dumps(list(command)))


def node_port():
    """A port in the range that nothing on this host uses: another cluster may run beside."""
    for port in range(32700, 32767):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no port is free")


def fetch(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            with opener.open(url, timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


@pytest.fixture(scope="module")
def web(cluster):
    port = node_port()
    manifest = WEB % port
    assert "deployment.apps/web created" in cluster.apply(manifest)
    cluster.kubectl("rollout", "status", "deploy/web", f"--timeout={PATIENCE_S}s")
    return port, manifest


@pytest.mark.parametrize("program", KUBECTLS)
def test_a_new_cluster(cluster, program):
    nodes = cluster.kubectl("get", "nodes", program=program).stdout
    assert " Ready " in nodes
    assert "control-plane" in nodes
    assert "v1.36" in nodes
    parts = cluster.kubectl("get", "po", "-n", "kube-system", "-l", "component=etcd", program=program).stdout
    assert "etcd-" in parts
    assert "Running" in parts
    assert "kube-system" in cluster.kubectl("get", "pods", "--all-namespaces", program=program).stdout
    assert "Kubernetes control plane" in cluster.kubectl("cluster-info", program=program).stdout


def test_an_empty_namespace_says_so(cluster):
    cluster.kubectl("create", "namespace", "empty")
    assert cluster.kubectl("get", "pods", "-n", "empty").stderr == "No resources found in empty namespace.\n"


def test_the_notebook_road(cluster, web):
    port, manifest = web
    cluster.kubectl("exec", "deploy/web", "--", "sh", "-c", "echo kept > /data/index.html")
    assert fetch(f"http://{cluster.ip}:{port}/index.html") == "kept\n"
    assert fetch(f"http://127.0.0.1:{port}/index.html") == "kept\n"
    assert cluster.kubectl("logs", "deploy/web").stdout == "serving\n"
    before = cluster.kubectl("get", "pods", "-l", "app=web", "-o", "name").stdout
    cluster.kubectl("delete", before.strip())
    cluster.kubectl("rollout", "status", "deploy/web", f"--timeout={PATIENCE_S}s")
    assert cluster.kubectl("get", "pods", "-l", "app=web", "-o", "name").stdout != before
    assert fetch(f"http://{cluster.ip}:{port}/index.html") == "kept\n"
    assert cluster.apply(manifest).count("unchanged") == 3


def test_port_forward(cluster, web):
    cluster.kubectl("exec", "deploy/web", "--", "sh", "-c", "echo kept > /data/forward.html")
    words = [KUBECTLS[0], "port-forward", "svc/web", ":80"]
    with subprocess.Popen(words, env=cluster.environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            port = line.split("127.0.0.1:")[1].split()[0]
            for _ in range(3):
                assert fetch(f"http://127.0.0.1:{port}/forward.html") == "kept\n"
        finally:
            process.terminate()


@pytest.mark.parametrize("program", KUBECTLS)
def test_exec_carries_streams_and_exit_codes(cluster, web, program):
    done = cluster.kubectl("exec", "deploy/web", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False, program=program)
    assert done.returncode == 7
    assert done.stdout == "out\n"
    assert "err\n" in done.stderr
    piped = cluster.kubectl("exec", "-i", "deploy/web", "--", "cat", stdin="typed", program=program)
    assert piped.stdout == "typed"


def test_copy(cluster, web, tmp_path):
    name = cluster.kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}").stdout
    (tmp_path / "in").write_text("copied")
    cluster.kubectl("cp", str(tmp_path / "in"), f"{name}:/tmp/there")
    cluster.kubectl("cp", f"{name}:/tmp/there", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "copied"


@pytest.mark.parametrize("what", ["pod", "deployment", "service", "pvc", "node", "pv", "storageclass", "namespace"])
def test_describe(cluster, web, what):
    text = cluster.kubectl("describe", what).stdout
    assert text.startswith("Name:")


def test_outputs(cluster, web):
    assert "NOMINATED NODE" in cluster.kubectl("get", "pods", "-o", "wide").stdout
    assert "kind: Deployment" in cluster.kubectl("get", "deploy", "web", "-o", "yaml").stdout
    assert json.loads(cluster.kubectl("get", "svc", "web", "-o", "json").stdout)["spec"]["type"] == "NodePort"
    assert cluster.kubectl("get", "pvc", "web", "-o", "jsonpath={.status.phase}").stdout == "Bound"
    assert "RWO" in cluster.kubectl("get", "pv").stdout
    assert "deployments" in cluster.kubectl("api-resources").stdout
    assert "containers" in cluster.kubectl("explain", "pod.spec", "--recursive").stdout
    assert cluster.kubectl("auth", "can-i", "create", "pods").stdout == "yes\n"


def test_scale_and_rollouts(cluster):
    cluster.kubectl("create", "deployment", "many", "--image=busybox", "--", "sleep", "600")
    local = {"name": "busybox", "imagePullPolicy": "IfNotPresent"}
    spec = {"template": {"spec": {"terminationGracePeriodSeconds": 0, "containers": [local]}}}
    cluster.kubectl("patch", "deployment", "many", "-p", json.dumps({"spec": spec}))
    cluster.kubectl("scale", "deployment/many", "--replicas=3")
    assert "successfully rolled out" in cluster.kubectl("rollout", "status", "deployment/many", f"--timeout={PATIENCE_S}s").stdout
    assert "3/3" in cluster.kubectl("get", "deployment", "many").stdout
    cluster.kubectl("set", "env", "deployment/many", "A=1")
    cluster.kubectl("rollout", "status", "deployment/many", f"--timeout={PATIENCE_S}s")
    cluster.kubectl("rollout", "undo", "deployment/many")
    cluster.kubectl("rollout", "status", "deployment/many", f"--timeout={PATIENCE_S}s")
    assert (
        "env"
        not in json.loads(cluster.kubectl("get", "deployment", "many", "-o", "json").stdout)["spec"]["template"]["spec"]["containers"][0]
    )
    cluster.kubectl("rollout", "restart", "deployment/many")
    cluster.kubectl("rollout", "status", "deployment/many", f"--timeout={PATIENCE_S}s")
    cluster.kubectl("delete", "deployment", "many")
    cluster.kubectl("wait", "--for=delete", "pod", "-l", "app=many", f"--timeout={PATIENCE_S}s")


def test_create_edit_and_delete(cluster, tmp_path):
    path = tmp_path / "pod.yaml"
    path.write_text(pod("one", "sh", "-c", "echo words; sleep 600"))
    assert cluster.kubectl("create", "-f", str(path)).stdout == "pod/one created\n"
    again = cluster.kubectl("create", "-f", str(path), check=False)
    assert "Error from server (AlreadyExists): error when creating" in again.stderr
    cluster.kubectl("wait", "--for=condition=Ready", "pod/one", f"--timeout={PATIENCE_S}s")
    assert cluster.kubectl("logs", "one").stdout == "words\n"
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/run: one/run: edited/' \"$1\"\n")
    editor.chmod(0o755)
    cluster.environ["EDITOR"] = str(editor)
    assert cluster.kubectl("edit", "pod", "one").stdout == "pod/one edited\n"
    assert cluster.kubectl("get", "pods", "-l", "run=edited", "-o", "name").stdout == "pod/one\n"
    assert cluster.kubectl("delete", "-f", str(path)).stdout == 'pod "one" deleted from default namespace\n'
    assert "NotFound" in cluster.kubectl("get", "pod", "one", check=False).stderr


def test_pods_end_as_they_should(cluster):
    cluster.apply(pod("done", "true"))
    cluster.apply(pod("broken", "sh", "-c", "exit 3"))
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/done", f"--timeout={PATIENCE_S}s")
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Failed", "pod/broken", f"--timeout={PATIENCE_S}s")
    state = cluster.kubectl("get", "pod", "broken", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}")
    assert state.stdout == "3"
    cluster.kubectl("delete", "pod", "done", "broken")


def test_names_are_served_in_pods(cluster, web):
    cluster.apply(pod("asks", "sh", "-c", "nslookup web.default.svc.cluster.local && wget -qO- http://web/dns.html"))
    cluster.kubectl("exec", "deploy/web", "--", "sh", "-c", "echo by-name > /data/dns.html")
    cluster.kubectl("delete", "pod", "asks")
    cluster.apply(pod("asks", "sh", "-c", "wget -qO- http://web/dns.html && wget -qO- http://web.default.svc.cluster.local/dns.html"))
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/asks", f"--timeout={PATIENCE_S}s")
    assert cluster.kubectl("logs", "asks").stdout == "by-name\nby-name\n"
    cluster.kubectl("delete", "pod", "asks")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (pod("x", "true").replace("restartPolicy", "restartPolice"), 'unknown field "spec.restartPolice"'),
        (pod("Not_A_Name", "true"), "a lowercase RFC 1123 subdomain must consist of"),
        (pod("x", "true").replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: soon"), "cannot unmarshal string"),
        (pod("x", "true").replace("restartPolicy: Never", "restartPolicy: Perhaps"), 'Unsupported value: "Perhaps"'),
        (pod("x", "true").replace("image: busybox, ", ""), "spec.containers[0].image: Required value"),
    ],
)
def test_bad_manifests_are_refused(cluster, manifest, message):
    done = cluster.kubectl("create", "-f", "-", stdin=manifest, check=False)
    assert done.returncode != 0
    assert message in done.stderr


def test_an_image_nobody_has(cluster):
    cluster.apply(pod("lost", "true").replace("image: busybox", "image: 127.0.0.1:1/none"))
    waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImagePull"
    cluster.kubectl("wait", f"--for={waiting}", "pod/lost", f"--timeout={PATIENCE_S}s")
    assert "Failed to pull image" in cluster.kubectl("describe", "pod", "lost").stdout
    cluster.kubectl("delete", "pod", "lost")


def test_strangers_are_kept_out(cluster):
    server = json.loads(cluster.kubectl("config", "view", "-o", "json", "--raw").stdout)["clusters"][0]["cluster"]["server"]
    words = ("--server", server, "--insecure-skip-tls-verify", "--kubeconfig", "/dev/null")
    refused = cluster.kubectl(*words, "--token", "wrong", "get", "pods", check=False)
    assert "Unauthorized" in refused.stderr or "must be logged in" in refused.stderr
    token = cluster.kubectl("create", "token", "default").stdout.strip()
    forbidden = cluster.kubectl(*words, "--token", token, "get", "pods", check=False)
    assert 'User "system:serviceaccount:default:default" cannot list resource "pods"' in forbidden.stderr


def test_stop_and_start_keep_everything(cluster, web, tmp_path):
    port, _ = web
    cluster.kubectl("exec", "deploy/web", "--", "sh", "-c", "echo stays > /data/stays.html")
    cluster.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    copy = tmp_path / "objects"
    cluster.atoll("cluster", "snapshot", str(copy))
    cluster.kubectl("delete", "configmap", "kept")
    assert "stop it first" in cluster.atoll("cluster", "restore", str(copy), check=False).stderr
    cluster.atoll("cluster", "stop")
    assert "apiserver: Stopped" in cluster.atoll("cluster", "status", check=False).stdout
    cluster.atoll("cluster", "restore", str(copy))
    cluster.atoll("cluster", "start")
    cluster.kubectl("get", "configmap", "kept")
    assert "apiserver: Running" in cluster.atoll("cluster", "status").stdout
    assert fetch(f"http://{cluster.ip}:{port}/stays.html") == "stays\n"
