"""The node beside the control plane is marked as such, as kubeadm does: by the control plane, since no node may name its own role."""

from __future__ import annotations

import asyncio

from atoll.client.factory import InformerFactory
from atoll.client.objects import Object, labels_of, name_of
from atoll.client.protocol import Client, is_not_found
from atoll.client.resources import NODES
from atoll.errors import StatusError

LABELS = {"node-role.kubernetes.io/control-plane": "", "node.kubernetes.io/exclude-from-external-load-balancers": ""}


async def mark_control_plane(client: Client, informers: InformerFactory, node: str) -> None:
    """Whenever NODE registers; until cancelled."""
    registered = asyncio.Event()

    def look(_: Object | None, new: Object | None) -> None:
        if new is not None and name_of(new) == node and not labels_of(new).keys() >= LABELS.keys():
            registered.set()

    informers.informer(NODES).add_handler(look)
    while True:
        await registered.wait()
        registered.clear()
        try:
            await client.patch(NODES, node, {"metadata": {"labels": LABELS}})
        except StatusError as error:
            if not is_not_found(error):
                raise
