"""Replication controllers: their selector is a plain map, by default the labels of their template."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.pod_spec import validate_template
from atoll.apiserver.kinds.replicaset import ReplicaSetRules
from atoll.apiserver.kinds.rules import Object, ReadOnly
from atoll.apiserver.kinds.workloads import template_labels


class ReplicationControllerRules(ReplicaSetRules):
    kind_word = "ReplicationController"
    selector_is_immutable = False

    def default(self, obj: Object) -> None:
        super().default(obj)
        labels = template_labels(obj["spec"])
        if labels:
            if not obj["spec"].get("selector"):
                obj["spec"]["selector"] = dict(labels)
            if not obj.setdefault("metadata", {}).get("labels"):
                obj["metadata"]["labels"] = dict(labels)

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        causes.non_negative("spec.replicas", spec.get("replicas"))
        causes.non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
        selector, labels = spec.get("selector") or {}, template_labels(spec)
        if not selector:
            causes.required("spec.selector")
        elif any(labels.get(key) != value for key, value in selector.items()):
            causes.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
        validate_template(spec.get("template") or {}, "spec.template", causes, ("Always",))


RULES = ReplicationControllerRules()
