"""Bodies of the workloads that the tests make."""

from __future__ import annotations

from conformance_plane import PLAYED

IMAGE = "registry.k8s.io/e2e-test-images/agnhost:2.53"


def container(name="main", **fields):
    return {"name": name, "image": IMAGE, **fields}


def pod_spec(**fields):
    return {"containers": [container()], **fields}


def template(labels, *, fate=None, annotations=None, **spec):
    """`fate` is what the played kubelet makes of the pods."""
    given = {**(annotations or {}), **({PLAYED: fate} if fate else {})}
    metadata = {"labels": dict(labels), **({"annotations": given} if given else {})}
    return {"metadata": metadata, "spec": pod_spec(**spec)}


def workload(labels, *, replicas=1, fate=None, selector=None, pod=None, **fields):
    """The spec of a ReplicaSet, Deployment or StatefulSet."""
    selected = selector or {"matchLabels": dict(labels)}
    return {"replicas": replicas, "selector": selected, "template": template(labels, fate=fate, **(pod or {})), **fields}


def controller(labels, **fields):
    """The spec of a ReplicationController."""
    return workload(labels, selector=dict(labels), **fields)
