"""DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or cannot be reached, unless it says otherwise."""

from __future__ import annotations

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery.items import Object

SECONDS = 300  # upstream's --default-not-ready-toleration-seconds
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def add_default_tolerations(_core: Core, _call: Call, new: Object) -> None:
    tolerations = new.setdefault("spec", {}).setdefault("tolerations", [])
    for taint in _TAINTS:
        tolerated = any(
            toleration.get("key") in (taint, None, "") and toleration.get("effect") in ("NoExecute", None, "") for toleration in tolerations
        )
        if not tolerated:
            tolerations.append({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS})
