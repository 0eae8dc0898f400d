"""start, stop, delete, status: what minikube's verbs do, for the one cluster of an instance.

Each verb may be cut short and said again: settings are written before anything runs, the control plane's lock tells whether it lives, and
the node daemon keeps by itself what it has joined.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from atoll.client.http import HttpClient
from atoll.client.resources import NODES
from atoll.cluster import addons, kubeconfig, policies
from atoll.cluster.certificates import Certificates
from atoll.cluster.settings import DEFAULT_API_PORT, PID_FILE, ClusterSettings, free_port, host_address, node_name, pick_service_cidr
from atoll.config import Instance
from atoll.errors import AtollError, Conflict, InUse, InvalidInput, NotFound, NotSupported, StatusError, Unavailable
from atoll.http import Client as HttpTransport
from atoll.process import end, pid_of, spawn
from atoll.store import open_store

START_TIMEOUT_S = 60
READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """minikube's four lines: Running or Stopped for the parts; Configured where the user's kubeconfig knows the cluster."""

    node: str
    kubelet: str
    api_server: str
    configured: bool

    @property
    def is_running(self) -> bool:
        return self.api_server == "Running" and self.kubelet == "Running"


class EtcdFiles(NamedTuple):
    """Certificates by which etcd is reached; empty where there is none. Named as the settings' fields."""

    etcd_cafile: str = ""
    etcd_certfile: str = ""
    etcd_keyfile: str = ""

    def absolute(self) -> EtcdFiles:
        return EtcdFiles(*(str(Path(file).absolute()) if file else "" for file in self))


NO_FILES = EtcdFiles()


async def start(
    instance: Instance,
    report: Report,
    *,
    api_port: int | None = None,
    update_context: bool = True,
    store: str | None = None,
    etcd_files: EtcdFiles = NO_FILES,
    authentication: str | None = None,
    audit_policy: str | None = None,
) -> ClusterSettings:
    """Start, or start again, the cluster; answers when its node is Ready. The engine must answer on its socket already.

    `store` is etcd://host:port for a cluster that keeps its objects there, or etcds://host:port with the certificates of `etcd_files`;
    Conflict where it keeps them elsewhere already.
    `authentication` and `audit_policy` are files for the API server (`policies`).
    """
    settings = await _settled(instance, api_port, store, etcd_files)
    runs = control_plane_pid(instance) is not None
    if runs and (authentication is not None or audit_policy is not None):
        raise Conflict("the API server reads these files when it starts: stop the cluster with `atoll cluster stop`, then start it again")
    policies.keep(instance, authentication, audit_policy)
    if not runs:
        report("Starting the control plane: store, API server, scheduler, controllers")
        spawn("atoll.cluster.controlplane", log=instance.logs / "controlplane.log", home=instance.home, interpreter=sys.executable)
    access = _write_kubeconfig(instance, settings)
    if update_context and kubeconfig.users_file().absolute() != instance.kubeconfig:
        kubeconfig.merge(kubeconfig.users_file(), access)
    report(f"Joining the node {settings.node_name}")
    await _engine(instance, "POST", "/atoll/node/join", _join_request(instance, settings))
    await _node_ready(instance, settings)
    addons.resume(instance, report)
    return settings


async def _settled(instance: Instance, api_port: int | None, store: str | None, etcd_files: EtcdFiles) -> ClusterSettings:
    files = etcd_files.absolute()
    try:
        settings = ClusterSettings.load(instance)
    except NotFound:
        pass
    else:
        if store not in (None, settings.store):
            where = settings.store_in(instance)
            raise Conflict(f"this cluster keeps its objects in {where}: start it without --store, or delete it with `atoll cluster delete`")
        return await _renewed(instance, settings, files) if any(files) else settings
    settings = ClusterSettings(
        node_name=node_name(),
        node_ip=host_address(),
        api_port=api_port or free_port(DEFAULT_API_PORT),
        service_cidr=pick_service_cidr(),
        store=store or "",
        **files._asdict(),
    )
    await _try_store(settings)
    instance.cluster.mkdir(mode=0o711, parents=True, exist_ok=True)
    settings.save(instance)
    return settings


async def _renewed(instance: Instance, settings: ClusterSettings, files: EtcdFiles) -> ClusterSettings:
    """The same cluster, which from now on reaches its etcd by these certificates."""
    renewed = dataclasses.replace(settings, **files._asdict())
    if renewed == settings:
        return settings
    if control_plane_pid(instance) is not None:
        raise Conflict("the API server reads certificates for etcd when it starts: stop the cluster with `atoll cluster stop` first")
    await _try_store(renewed)
    renewed.save(instance)
    return renewed


async def _try_store(settings: ClusterSettings) -> None:
    """Refuse now what a process in the background would refuse. Raises InvalidInput, Unavailable."""
    if settings.store:
        await (await open_store(settings.store, compact_interval=None, tls=settings.etcd_tls)).close()
    elif settings.etcd_tls is not None:
        raise InvalidInput("certificates for etcd are given, and no etcd: name it by --store etcds://host:port")


def _write_kubeconfig(instance: Instance, settings: ClusterSettings) -> dict[str, Any]:
    certificates = Certificates(instance, settings)
    certificate, key = certificates.admin()
    access = kubeconfig.entry(settings.server, certificates.authority.read_bytes(), certificate.read_bytes(), key.read_bytes())
    kubeconfig.write(instance.kubeconfig, access)
    return access


def _join_request(instance: Instance, settings: ClusterSettings) -> dict[str, Any]:
    """The body of POST /atoll/node/join: how the node reaches the API, who it is there, and what its pods are told."""
    certificates = Certificates(instance, settings)
    certificate, key = certificates.node()
    serving, serving_key = certificates.node_serving()
    return {
        "server": f"https://127.0.0.1:{settings.api_port}",
        "ca": certificates.authority.read_text(),
        "certificate": certificate.read_text(),
        "key": key.read_text(),
        "servingCertificate": serving.read_text(),
        "servingKey": serving_key.read_text(),
        "name": settings.node_name,
        "address": settings.node_ip,
        "serviceCIDR": settings.service_cidr,
        "clusterDNS": settings.dns_ip,
        "clusterDomain": settings.cluster_domain,
        "controlPlaneLog": str(instance.logs / "controlplane.log"),
    }


async def _engine(instance: Instance, method: str, path: str, body: Any = None) -> Any:
    """A call to this instance's engine. Raises AtollError with the engine's own message."""
    client = HttpTransport(f"unix://{instance.engine_socket}")
    try:
        headers = [("Content-Type", "application/json")]
        reply = await client.request(method, path, headers, orjson.dumps(body) if body is not None else b"", timeout=START_TIMEOUT_S)
        data = await reply.read()
    finally:
        await client.close()
    value = orjson.loads(data) if data else None
    if reply.status >= 400:
        message = value.get("message") if isinstance(value, dict) else None
        raise AtollError(f"the engine refused {method} {path}: {message or data.decode(errors='replace')}")
    return value


async def _node_ready(instance: Instance, settings: ClusterSettings) -> None:
    """Wait, by watch, until the node says Ready."""
    import asyncio

    client = api_client(instance, settings)
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            listed = await client.list(NODES)
            if any(_is_ready(node) for node in listed["items"] if node["metadata"]["name"] == settings.node_name):
                return
            revision = listed["metadata"]["resourceVersion"]
            selector = f"metadata.name={settings.node_name}"
            async for _, node in client.watch(NODES, resource_version=revision, field_selector=selector):
                if _is_ready(node):
                    return
    except TimeoutError:
        raise Unavailable(
            f"the node {settings.node_name} did not become Ready within {READY_TIMEOUT_S} s: see `atoll engine logs`"
        ) from None
    finally:
        await client.close()


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def api_client(instance: Instance, settings: ClusterSettings) -> HttpClient:
    """The API as the cluster's administrator."""
    certificates = Certificates(instance, settings)
    certificate, key = certificates.admin()
    context = ssl.create_default_context(cafile=str(certificates.authority))
    context.load_cert_chain(certificate, key)
    return HttpClient(f"https://127.0.0.1:{settings.api_port}", context)


def control_plane_pid(instance: Instance) -> int | None:
    """The control plane's process, if one lives."""
    return pid_of(instance.cluster / PID_FILE)


async def stop(instance: Instance, report: Report) -> None:
    """Stop pods and control plane; objects and volumes stay. Raises NotFound where there is no cluster."""
    ClusterSettings.load(instance)
    if instance.engine_socket.exists():
        report("Stopping the node's pods")
        with contextlib.suppress(Unavailable):
            await _engine(instance, "POST", "/atoll/node/leave")
    _stop_control_plane(instance, report)
    addons.suspend(instance, report)


def _stop_control_plane(instance: Instance, report: Report) -> None:
    pid = control_plane_pid(instance)
    if pid is None:
        return
    report("Stopping the control plane")
    end(pid, STOP_TIMEOUT_S)  # killed in the end: acknowledged writes are on disk, nothing is lost


def snapshot(instance: Instance, target: Path) -> None:
    """Copy the cluster's objects to a new file, while it runs or not. Raises NotFound, Conflict, NotSupported where they are in etcd."""
    from atoll.store import backup

    backup.snapshot(_store_file(instance, "etcdctl snapshot save"), target)


def restore(instance: Instance, source: Path) -> None:
    """Put a snapshot's objects in the place of the cluster's, which must be stopped. Raises NotFound, InUse, NotSupported, Unavailable."""
    from atoll.store import backup

    store = _store_file(instance, "etcdctl snapshot restore")
    pid = control_plane_pid(instance)
    if pid is not None:
        raise InUse(f"the cluster runs (process {pid}): stop it first with `atoll cluster stop`")
    backup.restore(source, store)


def _store_file(instance: Instance, instead: str) -> Path:
    where = ClusterSettings.load(instance).store_in(instance)
    if not isinstance(where, Path):
        raise NotSupported(f"this cluster keeps its objects in {where}: use `{instead}`")
    return where


async def delete(instance: Instance, report: Report) -> None:
    """Stop, then remove the cluster's directory: objects, volumes, certificates. No cluster is no error."""
    if not instance.cluster.exists():
        return
    with contextlib.suppress(NotFound):
        await stop(instance, report)
    _stop_control_plane(instance, report)
    addons.suspend(instance, report)
    report("Removing the cluster's data")
    await _remove_tree(instance.cluster)
    kubeconfig.remove(kubeconfig.users_file())


async def _remove_tree(path: Path) -> None:
    import asyncio

    await asyncio.to_thread(shutil.rmtree, path)


async def status(instance: Instance) -> ClusterStatus:
    """Raises NotFound where there is no cluster."""
    settings = ClusterSettings.load(instance)
    api_server = "Stopped" if control_plane_pid(instance) is None else "Running"
    kubelet = "Stopped"
    if instance.engine_socket.exists():
        with contextlib.suppress(AtollError):
            joined = await _engine(instance, "GET", "/atoll/node")
            kubelet = "Running" if joined and joined.get("joined") else "Stopped"
    node = "Running" if api_server == kubelet == "Running" and await _answers(instance, settings) else "Stopped"
    return ClusterStatus(node, kubelet, api_server, configured=instance.kubeconfig.exists())


async def _answers(instance: Instance, settings: ClusterSettings) -> bool:
    client = api_client(instance, settings)
    try:
        await client.get(NODES, settings.node_name)
    except (StatusError, Unavailable):
        return False
    finally:
        await client.close()
    return True
