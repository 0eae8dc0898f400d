"""The control plane's process: `python -m atoll.cluster.controlplane` runs API server, controllers and scheduler of the instance's cluster.

One loop, one process: controllers and scheduler reach the API through the in-process client, without sockets or encoding. Its pid stands in
cluster/controlplane.pid, whose lock says that it lives; `--ready-fd N` gets one byte once /readyz is ok.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import logging.handlers
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from atoll.apiserver import ApiServerConfig, InProcessClient, serve
from atoll.client.factory import InformerFactory
from atoll.cluster.certificates import Certificates
from atoll.cluster.defaults import create_defaults
from atoll.cluster.settings import ClusterSettings
from atoll.config import Instance
from atoll.controllers.base import Config
from atoll.controllers.registry import run_all
from atoll.errors import AtollError, Conflict
from atoll.scheduler.scheduler import Scheduler

LOG_MAX = 10 << 20  # bytes of controlplane.log before it is rotated, once
STORE = "store.db"
VOLUMES = "volumes"  # below the cluster's directory: what the local-path provisioner makes

log = logging.getLogger("atoll.controlplane")


def api_config(instance: Instance, settings: ClusterSettings) -> ApiServerConfig:
    certificates = Certificates(instance, settings)
    serving, key = certificates.api_server()
    kubelet, kubelet_key = certificates.kubelet_client()
    return ApiServerConfig(
        store=instance.cluster / STORE,
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
    )


async def run(instance: Instance, ready: int | None = None) -> None:
    """Until TERM or INT. A part that dies takes the process with it: half a control plane is worse than a restarted one."""
    settings = ClusterSettings.load(instance)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = await serve(api_config(instance, settings))
    try:
        client = InProcessClient(serving.server)
        await create_defaults(client, settings.dns_ip)
        informers = InformerFactory(client)
        controllers = Config(root_ca=Certificates(instance, settings).authority.read_text(), local_path_root=instance.cluster / VOLUMES)
        parts: dict[str, Coroutine[Any, Any, None]] = {
            "informers": informers.run(),
            "controllers": run_all(client, controllers, informers=informers),
            "scheduler": Scheduler(client, informers).run(),
            "stop": _stopped(stop),
        }
        tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
        log.info("the control plane is ready on %s", settings.server)
        if ready is not None:
            os.write(ready, b"1")
            os.close(ready)
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for task in done:
            task.result()
        log.info("the control plane goes")
    finally:
        await serving.close()


async def _stopped(stop: asyncio.Event) -> None:
    await stop.wait()


@contextmanager
def only_one(instance: Instance) -> Iterator[None]:
    """Hold the lock, with our pid in it. Raises Conflict naming the process that has it."""
    fd = os.open(instance.cluster / "controlplane.pid", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise Conflict(f"another control plane runs on {instance.cluster} already: process {holder}") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def set_up_logging(instance: Instance) -> None:
    instance.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = logging.handlers.RotatingFileHandler(instance.logs / "controlplane.log", maxBytes=LOG_MAX, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="atoll.cluster.controlplane", description="Run the control plane of the instance ATOLL_HOME names."
    )
    parser.add_argument("--ready-fd", type=int, help="descriptor that gets one byte when the API answers")
    arguments = parser.parse_args()
    try:
        instance = Instance.from_environment()
        ClusterSettings.load(instance)
        with only_one(instance):
            set_up_logging(instance)
            _run(instance, arguments.ready_fd)
    except AtollError as error:
        sys.stderr.write(f"atoll: {error}\n")
        return 1
    return 0


def _run(instance: Instance, ready: int | None) -> None:
    try:
        import uvloop
    except ImportError:  # the wheel is not there for every platform
        asyncio.run(run(instance, ready))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(instance, ready))


if __name__ == "__main__":
    sys.exit(main())
