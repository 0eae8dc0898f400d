"""The control plane's process: `python -m atoll.cluster.controlplane` runs API server, controllers and scheduler of the instance's cluster.

One loop, one process: controllers and scheduler reach the API through the in-process client, without sockets or encoding. Its pid stands in
cluster/controlplane.pid, whose lock says that it lives; `--ready-fd N` gets one byte once /readyz is ok.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from functools import partial
from typing import Any

from atoll import process
from atoll.apiserver import ApiServerConfig, InProcessClient, serve
from atoll.client.factory import InformerFactory
from atoll.cluster import policies
from atoll.cluster.certificates import FRONT_PROXY, Certificates
from atoll.cluster.defaults import create_defaults
from atoll.cluster.resources import aggregated_resources, collected_resources
from atoll.cluster.roles import mark_control_plane
from atoll.cluster.settings import PID_FILE, ClusterSettings
from atoll.config import Instance
from atoll.controllers.base import Config
from atoll.controllers.registry import run_all
from atoll.scheduler.scheduler import Scheduler

VOLUMES = "volumes"  # below the cluster's directory: what the local-path provisioner makes

log = logging.getLogger("atoll.controlplane")


def api_config(instance: Instance, settings: ClusterSettings) -> ApiServerConfig:
    certificates = Certificates(instance, settings)
    serving, key = certificates.api_server()
    kubelet, kubelet_key = certificates.kubelet_client()
    return ApiServerConfig(
        store=settings.store_in(instance),
        etcd_tls=settings.etcd_tls,
        port=settings.api_port,
        advertise_address=settings.node_ip,
        serving_cert=serving,
        serving_key=key,
        client_ca=certificates.authority,
        service_account_key=certificates.service_account_key(),
        kubelet_cert=kubelet,
        kubelet_key=kubelet_key,
        kubelet_ca=certificates.authority,
        service_cidr=settings.services,
        front_proxy_ca=certificates.front_proxy_authority,
        front_proxy_names=(FRONT_PROXY,),
        proxy_client=certificates.front_proxy(),
        authentication=policies.kept(instance, policies.AUTHENTICATION),
        audit_policy=policies.kept(instance, policies.AUDIT_POLICY),
        audit_log=instance.logs / policies.AUDIT_LOG,
    )


async def run(instance: Instance, ready: int | None = None) -> None:
    """Until TERM or INT. A part that dies takes the process with it: half a control plane is worse than a restarted one."""
    settings = ClusterSettings.load(instance)
    stop = asyncio.Event()
    process.on_end(stop.set)
    with process.loading():
        serving = await serve(api_config(instance, settings))
    try:
        client = InProcessClient(serving.server)
        certificates = Certificates(instance, settings)
        await create_defaults(client, settings.dns_ip, settings.server, certificates.authority.read_bytes())
        informers = InformerFactory(client)
        registry = serving.server.api.core.registry
        controllers = Config(
            root_ca=certificates.authority.read_text(),
            signing_authority=certificates.signing,
            local_path_root=instance.cluster / VOLUMES,
            resources=lambda: collected_resources(registry),
            aggregated=lambda: aggregated_resources(serving.server.aggregator.foreign()),
        )
        parts: dict[str, Coroutine[Any, Any, None]] = {
            "informers": informers.run(),
            "controllers": run_all(client, controllers, informers=informers),
            "scheduler": Scheduler(client, informers).run(),
            "roles": mark_control_plane(client, informers, settings.node_name),
            "stop": _stopped(stop),
        }
        tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
        running = {task.get_name(): task for task in tasks}
        for name, part in (("scheduler", "scheduler"), ("controller-manager", "controllers")):
            serving.server.api.components.checks[name] = partial(_problem, running[part])
        log.info("the control plane is ready on %s", settings.server)
        process.tell_ready(ready)
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for task in done:
            task.result()
        log.info("the control plane goes")
    finally:
        await serving.close()


def _problem(part: asyncio.Task[None]) -> str:
    return f"{part.get_name()} has ended" if part.done() else ""


async def _stopped(stop: asyncio.Event) -> None:
    await stop.wait()


def _run() -> None:
    ready = process.ready_fd(sys.argv[1:], "atoll.cluster.controlplane", "Run the control plane of the instance ATOLL_HOME names.")
    instance = Instance.from_environment()
    ClusterSettings.load(instance)  # says that there is no cluster, before anything is made
    process.alone(
        lambda: run(instance, ready),
        "control plane",
        home=instance.home,
        pid_file=instance.cluster / PID_FILE,
        log=instance.logs / "controlplane.log",
    )


def main() -> int:
    return process.outcome("control plane", _run)


if __name__ == "__main__":
    sys.exit(main())
