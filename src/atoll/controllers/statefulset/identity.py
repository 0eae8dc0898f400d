"""Who the pod of an ordinal is: its name, host name, labels and claims."""

from __future__ import annotations

import re

from atoll.client.objects import Object, copy_of, labels_of, name_of, namespace_of
from atoll.client.resources import STATEFUL_SETS
from atoll.controllers.history import HASH_LABEL
from atoll.controllers.pods import pod_from_template

POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"
_NAME = re.compile(r"^(.*)-([0-9]+)$")


def pod_name(stateful_set: Object, ordinal: int) -> str:
    return f"{name_of(stateful_set)}-{ordinal}"


def ordinal_of(stateful_set: Object, pod: Object) -> int | None:
    """None when the pod's name is not one of the set's."""
    match = _NAME.match(name_of(pod))
    return int(match[2]) if match and match[1] == name_of(stateful_set) else None


def claim_name(stateful_set: Object, template: Object, ordinal: int) -> str:
    return f"{name_of(template)}-{pod_name(stateful_set, ordinal)}"


def claim_templates(stateful_set: Object) -> list[Object]:
    return stateful_set["spec"].get("volumeClaimTemplates") or []


def make_pod(stateful_set: Object, template: Object, revision: str, ordinal: int) -> Object:
    """The pod of the ordinal from `template`, which is that of the revision named."""
    pod = pod_from_template(template, stateful_set, STATEFUL_SETS, name=pod_name(stateful_set, ordinal))
    labels = pod["metadata"].setdefault("labels", {})
    labels |= {HASH_LABEL: revision, POD_NAME_LABEL: name_of(pod), POD_INDEX_LABEL: str(ordinal)}
    spec = pod["spec"]
    spec["hostname"] = name_of(pod)
    if stateful_set["spec"].get("serviceName"):
        spec["subdomain"] = stateful_set["spec"]["serviceName"]
    claimed = {
        name_of(each): {"name": name_of(each), "persistentVolumeClaim": {"claimName": claim_name(stateful_set, each, ordinal)}}
        for each in claim_templates(stateful_set)
    }
    if claimed:
        spec["volumes"] = [volume for volume in spec.get("volumes") or () if volume["name"] not in claimed] + list(claimed.values())
    return pod


def make_claims(stateful_set: Object, ordinal: int) -> list[Object]:
    made = []
    for template in claim_templates(stateful_set):
        claim = copy_of({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": template["metadata"], "spec": template["spec"]})
        labels = (stateful_set["spec"].get("selector") or {}).get("matchLabels") or {}
        claim["metadata"] = {
            "name": claim_name(stateful_set, template, ordinal),
            "namespace": namespace_of(stateful_set),
            "labels": {**labels_of(template), **labels},
            **({"annotations": template["metadata"]["annotations"]} if template["metadata"].get("annotations") else {}),
        }
        made.append(claim)
    return made
