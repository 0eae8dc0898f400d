"""ServiceAccount: every pod runs as an account of its namespace, and finds that account's token, the cluster's CA and its namespace in a
projected volume. Mirror pods, which a kubelet makes of its own files, have none.
"""

from __future__ import annotations

from typing import Any

from atoll.apiserver.auth import references
from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.generate import random_suffix
from atoll.apiserver.machinery.items import Object

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME_PREFIX = "kube-api-access-"
MIRROR = "kubernetes.io/config.mirror"
TOKEN_SECONDS = 3607  # upstream: an hour, and a mark by which such tokens are known


def give_service_account(core: Core, call: Call, new: Object) -> None:
    """Raises StatusError 403 when the account is missing."""
    spec = new.setdefault("spec", {})
    if MIRROR in (new["metadata"].get("annotations") or {}):
        what = "service accounts" if spec.get("serviceAccountName") else "secrets" if any(references.secrets(new)) else ""
        if what:
            raise statuses.forbidden(call.kind, call.name, f"a mirror pod may not reference {what}")
        return
    name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = core.find("", "v1", "serviceaccounts", name, call.namespace)
    if account is None:
        raise statuses.forbidden(
            call.kind, call.name, f'error looking up service account {call.namespace}/{name}: serviceaccounts "{name}" not found'
        )
    if not spec.get("imagePullSecrets") and account.obj.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(reference) for reference in account.obj["imagePullSecrets"]]
    mounts = spec.get("automountServiceAccountToken")
    if mounts is None:
        mounts = account.obj.get("automountServiceAccountToken", True)
    if mounts:
        _mount(spec)


def _mount(spec: dict[str, Any]) -> None:
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    without = [c for c in containers if not any(m.get("mountPath") == MOUNT_PATH for m in c.get("volumeMounts") or ())]
    if not without:
        return
    present = next((each["name"] for each in spec.get("volumes") or () if str(each.get("name")).startswith(VOLUME_PREFIX)), None)
    volume = present or VOLUME_PREFIX + random_suffix()
    for container in without:
        container.setdefault("volumeMounts", []).append({"name": volume, "readOnly": True, "mountPath": MOUNT_PATH})
    if present:  # a webhook has added a container since
        return
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
    spec.setdefault("volumes", []).append({"name": volume, "projected": {"defaultMode": 420, "sources": sources}})
