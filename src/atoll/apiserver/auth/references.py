"""Which objects of its namespace a pod refers to: what the kubelet that runs it has to read (podutil.VisitPodSecretNames and its like)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Object = Mapping[str, Any]
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_SECRET_REFS = ("cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos")


def secrets(pod: Object) -> Iterator[str]:
    spec = pod["spec"]
    for reference in spec.get("imagePullSecrets") or ():
        yield reference.get("name") or ""
    yield from _of_containers(spec, "secretKeyRef", "secretRef")
    for volume in spec.get("volumes") or ():
        yield (volume.get("secret") or {}).get("secretName") or ""
        yield from _projected(volume, "secret")
        yield from _of_source(volume)
        yield ((volume.get("csi") or {}).get("nodePublishSecretRef") or {}).get("name") or ""


def config_maps(pod: Object) -> Iterator[str]:
    spec = pod["spec"]
    yield from _of_containers(spec, "configMapKeyRef", "configMapRef")
    for volume in spec.get("volumes") or ():
        yield (volume.get("configMap") or {}).get("name") or ""
        yield from _projected(volume, "configMap")


def claims(pod: Object) -> Iterator[str]:
    for volume in pod["spec"].get("volumes") or ():
        yield (volume.get("persistentVolumeClaim") or {}).get("claimName") or ""
        if volume.get("ephemeral"):
            yield f"{pod['metadata']['name']}-{volume['name']}"


def resource_claims(pod: Object) -> Iterator[str]:
    for claim in pod["spec"].get("resourceClaims") or ():
        yield claim.get("resourceClaimName") or ""
    status = pod.get("status") or {}
    for claim in status.get("resourceClaimStatuses") or ():
        yield claim.get("resourceClaimName") or ""
    yield (status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName") or ""


def secrets_of_volume(volume: Object, namespace: str) -> Iterator[tuple[str, str]]:
    """Namespace and name of the secrets a PersistentVolume refers to; one that names no namespace means its claim's."""
    spec = volume["spec"]
    found = [(spec.get(kind) or {}).get("secretRef") for kind in _SECRET_REFS]
    csi = spec.get("csi") or {}
    # The node stages, publishes and grows volumes; the controller's secrets are none of its business.
    found += [csi.get(f"{step}SecretRef") for step in ("nodePublish", "nodeStage", "nodeExpand")]
    for reference in found:
        if reference:
            yield reference.get("namespace") or namespace, reference.get("name") or ""
    azure = spec.get("azureFile") or {}
    if azure:
        yield azure.get("secretNamespace") or namespace, azure.get("secretName") or ""


def _of_source(volume: Object) -> Iterator[str]:
    for kind in _SECRET_REFS:
        yield ((volume.get(kind) or {}).get("secretRef") or {}).get("name") or ""
    yield (volume.get("azureFile") or {}).get("secretName") or ""


def _projected(volume: Object, kind: str) -> Iterator[str]:
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield (source.get(kind) or {}).get("name") or ""


def _of_containers(spec: Object, of_key: str, of_all: str) -> Iterator[str]:
    for field in _CONTAINERS:
        for container in spec.get(field) or ():
            for source in container.get("envFrom") or ():
                yield (source.get(of_all) or {}).get("name") or ""
            for variable in container.get("env") or ():
                yield ((variable.get("valueFrom") or {}).get(of_key) or {}).get("name") or ""
