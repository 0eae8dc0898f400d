"""What a cluster holds from its first second: the system's namespaces, its priority classes, its roles, and the API's own service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Any

import orjson

from atoll.apiserver.api import Api
from atoll.apiserver.auth import policy
from atoll.apiserver.call import MASTERS, Call, User
from atoll.apiserver.config import ApiServerConfig
from atoll.apiserver.fairness import bootstrap as fairness
from atoll.apiserver.machinery.items import Object
from atoll.client.addresses import is_special
from atoll.errors import AtollError, StatusError
from atoll.units import timestamp_seconds

log = logging.getLogger(__name__)

RECHECK_S = 60.0
SYSTEM = User("system:apiserver", (MASTERS,))
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_PRIORITIES = {
    "system-cluster-critical": (
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    "system-node-critical": (2_000_001_000, "Used for system critical pods that must not be moved from their current node."),
}


async def bootstrap(api: Api) -> None:
    """Create what is missing; safe to run at every start."""
    await asyncio.gather(*(_ensure(api, "", "namespaces", _namespace(name)) for name in NAMESPACES))
    roles = [(policy.GROUP, plural, obj) for plural, obj in policy.objects()]
    classes = [("scheduling.k8s.io", "priorityclasses", obj) for obj in _priority_classes()]
    flows = [(fairness.GROUP, plural, obj) for plural, obj in fairness.objects()]
    await asyncio.gather(*(_ensure(api, *what) for what in (*roles, *classes, *flows)))
    await asyncio.gather(*(_reconcile(api, plural, obj) for _, plural, obj in roles))


async def publish_service(api: Api, cluster_ip: str, address: str, port: int) -> None:
    """The service `kubernetes` in the default namespace, and endpoints that lead to this server; none where it has only loopback."""
    addresses = [] if is_special(address) else [address]
    if not addresses:
        log.warning("the address %s leads nowhere from a pod: the service default/kubernetes has no endpoints", address)
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    service = {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            "sessionAffinity": "None",
        },
    }
    endpoints = {
        "kind": "Endpoints",
        "apiVersion": "v1",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": each}], "ports": ports} for each in addresses],
    }
    endpoint_slice = {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [each], "conditions": {"ready": True}} for each in addresses],
        "ports": ports,
    }
    await _ensure(api, "", "services", service)
    await _replace(api, "", "services", service, ("spec", "ports"))
    for group, plural, obj in (("", "endpoints", endpoints), ("discovery.k8s.io", "endpointslices", endpoint_slice)):
        await _ensure(api, group, plural, obj)
        await _replace(api, group, plural, obj)


async def publish_service_range(api: Api, cidr: IPv4Network) -> None:
    """ServiceCIDR `kubernetes`: the range this server gives out from (KEP-1880)."""
    group, plural = "networking.k8s.io", "servicecidrs"
    obj = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [str(cidr)]}}
    await _ensure(api, group, plural, obj)
    call = _call(api, "update", group, plural, obj)
    item = api.core.cacher(call.kind).get(call.key) if call else None
    if call is None or item is None or (item.obj.get("status") or {}).get("conditions"):
        return
    call.subresource = "status"
    now, told = timestamp_seconds(api.core.clock()), "Kubernetes default Service CIDR is ready"
    ready = {"type": "Ready", "status": "True", "reason": "", "message": told, "lastTransitionTime": now}
    await api.update(call, {**orjson.loads(item.body), "status": {"conditions": [ready]}})


async def keep_service(api: Api, cluster_ip: str, address: str, port: int) -> None:
    """Publish the service again whenever it has been touched; runs until cancelled."""
    watched = [("", "services"), ("", "endpoints"), ("discovery.k8s.io", "endpointslices")]
    cachers = [api.core.cacher(kind) for group, plural in watched if (kind := api.core.registry.get(group, "v1", plural)) is not None]
    seen = [cacher.get("default/kubernetes") for cacher in cachers]
    while True:
        waiting = [asyncio.ensure_future(cacher.changed(RECHECK_S)) for cacher in cachers]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiting:
                waiter.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        if [cacher.get("default/kubernetes") for cacher in cachers] == seen:
            continue
        try:
            await publish_service(api, cluster_ip, address, port)
        except AtollError as error:
            log.warning("the service kubernetes could not be published: %s", error)
        seen = [cacher.get("default/kubernetes") for cacher in cachers]


def _namespace(name: str) -> Object:
    return {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}


def _priority_classes() -> Iterator[Object]:
    for name, (value, description) in _PRIORITIES.items():
        yield {
            "kind": "PriorityClass",
            "apiVersion": "scheduling.k8s.io/v1",
            "metadata": {"name": name},
            "value": value,
            "description": description,
        }


def _call(api: Api, verb: Any, group: str, plural: str, obj: Object) -> Call | None:
    kind = api.core.registry.get(group, "v1", plural)
    metadata = obj["metadata"]
    return Call(SYSTEM, verb, kind, metadata.get("namespace"), metadata["name"]) if kind else None


async def _ensure(api: Api, group: str, plural: str, obj: Object) -> None:
    call = _call(api, "create", group, plural, obj)
    if call is None or api.core.cacher(call.kind).get(call.key) is not None:
        return
    try:
        await api.create(call, orjson.loads(orjson.dumps(obj)))
    except StatusError as error:
        if error.reason != "AlreadyExists":
            raise


async def _reconcile(api: Api, plural: str, obj: Object) -> None:
    """Give a role or binding of an earlier release what this one adds, unless its annotation says to leave it; nothing is taken away."""
    call = _call(api, "update", policy.GROUP, plural, obj)
    item = api.core.cacher(call.kind).get(call.key) if call else None
    if call is None or item is None or (item.obj["metadata"].get("annotations") or {}).get(policy.AUTOUPDATE) != "true":
        return
    field = "rules" if plural.endswith("roles") else "subjects"
    present = item.obj.get(field) or []
    missing = [each for each in obj.get(field) or () if each not in present]
    if missing and not item.obj.get("aggregationRule"):
        wanted: Object = orjson.loads(item.body)
        wanted[field] = [*present, *missing]
        await api.update(call, wanted)


async def publish_authentication(api: Api, config: ApiServerConfig) -> None:
    """ConfigMap extension-apiserver-authentication: by which certificates API servers behind this one know its users and itself."""
    data = {}
    if config.client_ca is not None:
        data["client-ca-file"] = config.client_ca.read_text()
    if config.front_proxy_ca is not None:
        data |= {
            "requestheader-allowed-names": orjson.dumps(list(config.front_proxy_names)).decode(),
            "requestheader-client-ca-file": config.front_proxy_ca.read_text(),
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-uid-headers": '["X-Remote-Uid"]',
            "requestheader-username-headers": '["X-Remote-User"]',
        }
    metadata = {"name": "extension-apiserver-authentication", "namespace": "kube-system"}
    published = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": data}
    await _ensure(api, "", "configmaps", published)
    await _replace(api, "", "configmaps", published)


async def _replace(api: Api, group: str, plural: str, obj: Object, only: tuple[str, str] | None = None) -> None:
    """Bring the stored object to `obj`; `only` one field of it, where the rest has been filled in since."""
    call = _call(api, "update", group, plural, obj)
    item = api.core.cacher(call.kind).get(call.key) if call else None
    if call is None or item is None:
        return
    wanted: Object = orjson.loads(item.body)
    if only is None:
        wanted = {**wanted, **{field: value for field, value in obj.items() if field != "metadata"}}
    else:
        wanted[only[0]][only[1]] = obj[only[0]][only[1]]
    await api.update(call, wanted)
