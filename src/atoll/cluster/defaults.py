"""What a new cluster has that no user made: a default StorageClass over the local-path provisioner, as minikube's `standard`, and the
Service by which its pods find DNS, whose endpoints are the mirror pods that each node shows of its name server; and where the cluster is.

Created at a start where it is missing, and never changed but for the cluster's address: what a user has made of it stays so.
"""

from __future__ import annotations

from typing import Any

from atoll.client.objects import name_of, namespace_of
from atoll.client.protocol import Client, is_not_found
from atoll.client.resources import CONFIG_MAPS, ROLE_BINDINGS, ROLES, SERVICES, STORAGE_CLASSES, Resource
from atoll.cluster import kubeconfig
from atoll.controllers.certificates.bootstrapsigner import CLUSTER_INFO, KUBECONFIG
from atoll.controllers.certificates.bootstrapsigner import NAMESPACE as KUBE_PUBLIC
from atoll.controllers.volumes.local_path import PROVISIONER_NAME
from atoll.errors import StatusError
from atoll.node.dns import kube_dns_objects

_RBAC = "rbac.authorization.k8s.io/v1"
_READERS = "kubeadm:bootstrap-signer-clusterinfo"  # kubeadm's name, by which others look for it
STORAGE_CLASS: dict[str, Any] = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": PROVISIONER_NAME,
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "WaitForFirstConsumer",
}


async def create_defaults(client: Client, dns_ip: str, server: str, authority: bytes) -> None:
    """`dns_ip` is the address pods are told to ask for names, `server` the API's URL, `authority` whom to trust for it (PEM)."""
    await _create(client, STORAGE_CLASSES, STORAGE_CLASS)
    service, _ = kube_dns_objects(dns_ip, "")
    service["spec"]["selector"] = {"k8s-app": "kube-dns"}
    await _create(client, SERVICES, service)
    await _publish_cluster_info(client, server, authority)


async def _publish_cluster_info(client: Client, server: str, authority: bytes) -> None:
    """What a machine that joins starts from (kubeadm's cluster-info): no secret, and for anyone to read. It follows the address."""
    told = {"name": CLUSTER_INFO, "namespace": KUBE_PUBLIC}
    content = kubeconfig.public(server, authority)
    await _create(client, CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": told, "data": {KUBECONFIG: content}})
    present = await client.get(CONFIG_MAPS, CLUSTER_INFO, KUBE_PUBLIC)
    if (present.get("data") or {}).get(KUBECONFIG) != content:
        await client.patch(CONFIG_MAPS, CLUSTER_INFO, {"data": {KUBECONFIG: content}}, KUBE_PUBLIC)
    rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [CLUSTER_INFO], "verbs": ["get"]}
    metadata = {"name": _READERS, "namespace": KUBE_PUBLIC}
    await _create(client, ROLES, {"apiVersion": _RBAC, "kind": "Role", "metadata": metadata, "rules": [rule]})
    binding = {
        "apiVersion": _RBAC,
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": _READERS},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:anonymous"}],
    }
    await _create(client, ROLE_BINDINGS, binding)


async def _create(client: Client, resource: Resource, obj: dict[str, Any]) -> None:
    try:
        await client.get(resource, name_of(obj), namespace_of(obj))
    except StatusError as error:
        if not is_not_found(error):
            raise
        await client.create(resource, obj)
