"""A cluster of a test's own: control plane and node daemon as their own processes, with the genuine kubectl beside them.

cluster = Cluster(instance); cluster.start()
cluster.apply(pod("web", command="sleep 100"))
cluster.wait("web", is_running)
cluster.kubectl("exec", "web", "--", "true")
cluster.daemon.kill(); cluster.daemon.start()      # the node's process alone
cluster.destroy()
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atoll.config import Instance
from engine_harness import ATOLL, EngineDaemon

KUBECTL = str(Path(sys.executable).with_name("kubectl"))
Object = dict[str, Any]


class Cluster:
    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.daemon = EngineDaemon(instance)
        self.environ = {**self.daemon.environ, "KUBECONFIG": str(instance.kubeconfig)}

    def start(self) -> None:
        self.daemon.start()
        self.daemon.make_busybox()
        self.start_cluster()

    def start_cluster(self) -> None:
        self.atoll("cluster", "start")

    def stop_cluster(self) -> None:
        self.atoll("cluster", "stop")

    def atoll(self, *words: str) -> None:
        done = subprocess.run(
            [ATOLL, *words], env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        assert not done.returncode, f"atoll {' '.join(words)}: {done.stdout}{done.stderr}"

    def destroy(self) -> None:
        try:
            if (self.instance.cluster / "cluster.json").exists():
                self.stop_cluster()
            shutil.rmtree(self.instance.cluster, ignore_errors=True)
        finally:
            self.daemon.destroy()

    def kubectl(self, *args: str, stdin: str = "", check: bool = True, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([KUBECTL, *args], env=self.environ, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        assert not check or not done.returncode, f"kubectl {' '.join(args)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def apply(self, *objects: Object) -> None:
        self.kubectl("create", "-f", "-", stdin="\n---\n".join(json.dumps(obj) for obj in objects))

    def get(self, name: str, kind: str = "pod", namespace: str = "default") -> Object | None:
        done = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def wait(self, name: str, condition: Callable[[Object], bool], *, kind: str = "pod", timeout: float = 15) -> Object:
        """Until the object is there and the condition holds."""
        end = time.monotonic() + timeout
        while True:
            found = self.get(name, kind)
            if found is not None and condition(found):
                return found
            assert time.monotonic() < end, f"{kind} {name}: {json.dumps((found or {}).get('status'), indent=1)}\n{self.events(name)}"
            time.sleep(0.1)

    def wait_gone(self, name: str, kind: str = "pod", timeout: float = 15) -> None:
        end = time.monotonic() + timeout
        while self.get(name, kind) is not None:
            assert time.monotonic() < end, f"{kind} {name} is still there"
            time.sleep(0.1)

    def events(self, name: str) -> str:
        return self.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}").stdout

    def logs(self, name: str, *args: str) -> str:
        return self.kubectl("logs", name, *args).stdout

    def wait_logs(self, name: str, lines: int, timeout: float = 10) -> list[str]:
        """The first lines of the log, once there are as many."""
        end = time.monotonic() + timeout
        while len(found := self.logs(name).splitlines()) < lines:
            assert time.monotonic() < end, found
            time.sleep(0.1)
        return found

    def wait_clean(self, timeout: float = 5) -> None:
        """Until no pod has a container, a directory or a namespace; one that had ended goes at once from the API, and then from here."""
        end = time.monotonic() + timeout
        directories = (self.instance.cluster / "pods", self.instance.run / "netns" / "pod")
        while left := [*self.daemon.docker("ps", "-aq").stdout.split(), *(path for parent in directories for path in parent.iterdir())]:
            assert time.monotonic() < end, left
            time.sleep(0.1)

    def delete(self, name: str, *args: str) -> None:
        self.kubectl("delete", "pod", name, *args)


SLEEP = "trap 'exit 0' TERM; sleep 1000 & wait"  # the first process of a container gets no signal that it does not ask for


def pod(name: str, command: str | list[str] = SLEEP, **spec: Any) -> Object:
    """One container `main` of busybox; `container` adds to it, `labels` and `annotations` go to the metadata."""
    container = {
        "name": "main",
        "image": "busybox",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", command] if isinstance(command, str) else command,
        **spec.pop("container", {}),
    }
    metadata = {"name": name, **{field: spec.pop(field) for field in ("labels", "annotations") if field in spec}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


def is_running(obj: Object) -> bool:
    return bool(obj["status"].get("phase") == "Running" and all(row["ready"] for row in obj["status"].get("containerStatuses") or ()))


def has_phase(phase: str) -> Callable[[Object], bool]:
    return lambda obj: obj["status"].get("phase") == phase


def row(obj: Object, name: str = "main", field: str = "containerStatuses") -> Object:
    """The container's row of the status; before the kubelet has told of it, one that says nothing."""
    return next(
        (item for item in obj["status"].get(field) or () if item["name"] == name), {"restartCount": -1, "state": {}, "started": False}
    )


def waits_for(reason: str, name: str = "main") -> Callable[[Object], bool]:
    def check(obj: Object) -> bool:
        rows = obj["status"].get("containerStatuses") or ()
        return any(item["name"] == name and item["state"].get("waiting", {}).get("reason") == reason for item in rows)

    return check
