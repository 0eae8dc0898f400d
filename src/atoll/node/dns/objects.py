"""The objects by which a cluster knows its DNS: Service kube-dns and its EndpointSlice, under the names that tools look for."""

from __future__ import annotations

from typing import Any

from atoll.client.objects import copy_of
from atoll.client.protocol import Client, is_not_found
from atoll.client.resources import ENDPOINT_SLICES, SERVICES, Resource
from atoll.errors import StatusError

NAMESPACE = "kube-system"
NAME = "kube-dns"
_LABELS = {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
_PORTS = (("dns", "UDP"), ("dns-tcp", "TCP"))

Object = dict[str, Any]


def kube_dns_objects(cluster_ip: str, address: str, *, port: int = 53, node_name: str = "") -> tuple[Object, Object]:
    """The Service at `cluster_ip` and the EndpointSlice that leads it to the server at `address`."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": dict(_LABELS)},
        "spec": {
            "clusterIP": cluster_ip,
            "type": "ClusterIP",
            "ports": [{"name": name, "protocol": protocol, "port": 53, "targetPort": port} for name, protocol in _PORTS],
        },
    }
    endpoint: Object = {"addresses": [address], "conditions": {"ready": True, "serving": True, "terminating": False}}
    if node_name:
        endpoint["nodeName"] = node_name
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{NAME}-{node_name}" if node_name else f"{NAME}-server",
            "namespace": NAMESPACE,
            "labels": {
                **_LABELS,
                "kubernetes.io/service-name": NAME,
                "endpointslice.kubernetes.io/managed-by": "dns.atoll",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": name, "protocol": protocol, "port": port} for name, protocol in _PORTS],
        "endpoints": [endpoint],
    }
    return service, slice_


async def publish(client: Client, cluster_ip: str, address: str, *, port: int = 53, node_name: str = "") -> None:
    """Writes both; idempotent. A Service that is there keeps its own cluster IP."""
    service, slice_ = kube_dns_objects(cluster_ip, address, port=port, node_name=node_name)
    await _ensure(client, SERVICES, service, ())
    await _ensure(client, ENDPOINT_SLICES, slice_, ("ports", "endpoints"))


async def _ensure(client: Client, resource: Resource, wanted: Object, fields: tuple[str, ...]) -> None:
    try:
        found = await client.get(resource, wanted["metadata"]["name"], NAMESPACE)
    except StatusError as error:
        if not is_not_found(error):
            raise
        await client.create(resource, wanted, NAMESPACE)
        return
    if any(found.get(name) != wanted[name] for name in fields):
        changed = copy_of(found)
        changed.update({name: wanted[name] for name in fields})
        await client.update(resource, changed)
