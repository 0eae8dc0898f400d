"""The PyPI package `kubernetes` against a cluster: list, watch, create_from_yaml, and exec by WebSocket."""

import pytest
import yaml
from kubernetes import client, config, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

# The client leaves the sockets of watches and exec sessions to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PATIENCE_S = 60
POD = """
apiVersion: v1
kind: Pod
metadata: {name: python, labels: {from: python}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: busybox
      imagePullPolicy: IfNotPresent
      command: [sh, -c, "echo started; sleep 600"]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: python}
data: {key: value}
"""


@pytest.fixture(scope="module")
def api(cluster):
    made = config.new_client_from_config(str(cluster.instance.kubeconfig))
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(api):
    utils.create_from_yaml(api, yaml_objects=list(yaml.safe_load_all(POD)))
    core = client.CoreV1Api(api)
    watcher = watch.Watch()
    for event in watcher.stream(core.list_namespaced_pod, "default", label_selector="from=python", timeout_seconds=PATIENCE_S):
        statuses = event["object"].status.container_statuses or []
        if statuses and statuses[0].ready:
            watcher.stop()
            break
    else:
        raise AssertionError("the pod did not become ready")
    yield core
    core.delete_namespaced_pod("python", "default", grace_period_seconds=0)


def test_list_and_read(running):
    assert [pod.metadata.name for pod in running.list_namespaced_pod("default", label_selector="from=python").items] == ["python"]
    assert running.read_namespaced_config_map("python", "default").data == {"key": "value"}
    assert running.list_node().items[0].status.node_info.kubelet_version.startswith("v1.36")


def test_exec_by_websocket(running):
    words = ["sh", "-c", "echo out; echo err >&2"]
    connect = running.connect_get_namespaced_pod_exec
    done = stream(connect, "python", "default", command=words, stderr=True, stdin=False, stdout=True, tty=False)
    assert sorted(done.split()) == ["err", "out"]
    session = stream(connect, "python", "default", command=["cat"], stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False)
    session.write_stdin("typed\n")
    assert session.readline_stdout(timeout=PATIENCE_S) == "typed"
    session.close()


def test_logs_patch_and_errors(running):
    assert running.read_namespaced_pod_log("python", "default") == "started\n"
    changed = running.patch_namespaced_config_map("python", "default", {"data": {"key": "other"}})
    assert changed.data == {"key": "other"}
    with pytest.raises(ApiException) as missing:
        running.read_namespaced_pod("absent", "default")
    assert missing.value.status == 404
    stale = running.read_namespaced_config_map("python", "default")
    running.patch_namespaced_config_map("python", "default", {"data": {"key": "third"}})
    with pytest.raises(ApiException) as conflict:
        running.replace_namespaced_config_map("python", "default", stale)
    assert conflict.value.status == 409
