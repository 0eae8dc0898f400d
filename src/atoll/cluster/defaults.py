"""What a new cluster has that no user made: a default StorageClass over the local-path provisioner, as minikube's `standard`.

Created at a start where it is missing, and never changed: what a user has made of it stays so.
"""

from __future__ import annotations

from typing import Any

from atoll.client.protocol import Client, is_already_exists
from atoll.client.resources import STORAGE_CLASSES
from atoll.controllers.volumes.local_path import PROVISIONER_NAME
from atoll.errors import StatusError

STORAGE_CLASS: dict[str, Any] = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": PROVISIONER_NAME,
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "WaitForFirstConsumer",
}


async def create_defaults(client: Client) -> None:
    try:
        await client.create(STORAGE_CLASSES, STORAGE_CLASS)
    except StatusError as error:
        if not is_already_exists(error):
            raise
