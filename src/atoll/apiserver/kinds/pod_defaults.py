"""Defaults of pods and of the pod templates of all workloads (kubernetes, pkg/apis/core/v1/defaults.go)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

DEFAULT_MODE = 0o644
TOKEN_EXPIRATION_S = 3600
CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")


def containers_of(spec: Object) -> Iterator[Object]:
    for name in CONTAINER_LISTS:
        yield from spec.get(name) or ()


def default_pod_spec(spec: Object) -> None:
    """What holds for pods and templates alike."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    # serviceAccount is the older name of the same field; both are written.
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for container in containers_of(spec):
        default_container(container)
        if spec.get("hostNetwork"):
            for port in container.get("ports") or ():
                port.setdefault("hostPort", port.get("containerPort", 0))
    for volume in spec.get("volumes") or ():
        default_volume(volume)


def default_pod(spec: Object) -> None:
    """What holds for pods alone, on top."""
    spec.setdefault("enableServiceLinks", True)
    default_pod_spec(spec)
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        limits = container["resources"].get("limits")
        if limits:
            requests = container["resources"].setdefault("requests", {})
            for resource, amount in limits.items():
                requests.setdefault(resource, amount)


def default_container(container: Object) -> None:
    if "imagePullPolicy" not in container and container.get("image"):
        container["imagePullPolicy"] = pull_policy(container["image"])
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("resources", {})
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or ():
        _default_field_reference(variable.get("valueFrom"))
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _default_probe(container[name])
    for handler in (container.get("lifecycle") or {}).values():
        if isinstance(handler, dict):
            _default_http(handler)


def pull_policy(image: str) -> str:
    """Always for the tag latest, given or meant; else IfNotPresent."""
    name, _, digest = image.partition("@")
    _, _, tag = name.rpartition("/")[2].partition(":")
    return "Always" if not digest and tag in ("", "latest") else "IfNotPresent"


def default_volume(volume: Object) -> None:
    if len(volume) == 1:
        volume["emptyDir"] = {}
    for kind in ("secret", "configMap", "projected", "downwardAPI"):
        if kind in volume:
            volume[kind].setdefault("defaultMode", DEFAULT_MODE)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    if "image" in volume and volume["image"].get("reference"):
        volume["image"].setdefault("pullPolicy", pull_policy(volume["image"]["reference"]))
    if "ephemeral" in volume:
        volume["ephemeral"].get("volumeClaimTemplate", {}).get("spec", {}).setdefault("volumeMode", "Filesystem")
    sources = [volume, *(volume.get("projected", {}).get("sources") or ())]
    for source in sources:
        for item in source.get("downwardAPI", {}).get("items") or ():
            _default_field_reference(item)
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", TOKEN_EXPIRATION_S)


def _default_field_reference(source: Object | None) -> None:
    if source and "fieldRef" in source:
        source["fieldRef"].setdefault("apiVersion", "v1")


def _default_probe(probe: Object) -> None:
    # Zero means absent here: these fields are plain integers upstream.
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(name):
            probe[name] = value
    _default_http(probe)
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _default_http(handler: Object) -> None:
    http = handler.get("httpGet")
    if http is not None:
        http["path"] = http.get("path") or "/"
        http["scheme"] = http.get("scheme") or "HTTP"
