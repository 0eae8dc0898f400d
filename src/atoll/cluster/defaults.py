"""What a new cluster has that no user made: a default StorageClass over the local-path provisioner, as minikube's `standard`, and the
Service by which its pods find DNS, whose endpoints are the mirror pods that each node shows of its name server.

Created at a start where it is missing, and never changed: what a user has made of it stays so.
"""

from __future__ import annotations

from typing import Any

from atoll.client.objects import name_of, namespace_of
from atoll.client.protocol import Client, is_not_found
from atoll.client.resources import SERVICES, STORAGE_CLASSES, Resource
from atoll.controllers.volumes.local_path import PROVISIONER_NAME
from atoll.errors import StatusError
from atoll.node.dns import kube_dns_objects

STORAGE_CLASS: dict[str, Any] = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": PROVISIONER_NAME,
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "WaitForFirstConsumer",
}


async def create_defaults(client: Client, dns_ip: str) -> None:
    """`dns_ip` is the address pods are told to ask for names."""
    await _create(client, STORAGE_CLASSES, STORAGE_CLASS)
    service, _ = kube_dns_objects(dns_ip, "")
    service["spec"]["selector"] = {"k8s-app": "kube-dns"}
    await _create(client, SERVICES, service)


async def _create(client: Client, resource: Resource, obj: dict[str, Any]) -> None:
    try:
        await client.get(resource, name_of(obj), namespace_of(obj))
    except StatusError as error:
        if not is_not_found(error):
            raise
        await client.create(resource, obj)
