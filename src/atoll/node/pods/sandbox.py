"""A pod's sandbox: the network namespace its containers share, and the files that tell them of it.

No process holds it: the namespace stands by its bind mount, so a sandbox costs no memory. Its id is in sandbox.json of the pod's directory;
a namespace that has gone, after a reboot, means a new sandbox, and containers of the old one count as history.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import orjson

from atoll.client.objects import Object
from atoll.config import Instance
from atoll.errors import AtollError, NotFound
from atoll.kernel import netns as kernel_netns
from atoll.network import Networks, PortBinding, hosts_file
from atoll.node.config import NodeConfig
from atoll.node.directories import PodDirectory
from atoll.node.dns.podconfig import pod_resolv_conf
from atoll.node.pods.spec import Mount, Place

SCOPE = "pod"  # of endpoints and namespaces, beside the engine's own
NETWORK = "atoll-pods"
POD_SUBNET = "10.244.0.0/16"  # kubeadm's and flannel's convention; another where it is taken
HOSTNAME_MAX = 63
HOSTS_HEAD = "# Kubernetes-managed hosts file.\n"
HOSTS_HEAD_HOST = "# Kubernetes-managed hosts file (host network).\n"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sandbox:
    id: str
    address: str
    netns: Path | None  # None: the host's


class Sandboxes:
    """All sandboxes of the node, on one bridge."""

    def __init__(self, instance: Instance, networks: Networks, config: NodeConfig) -> None:
        self._instance = instance
        self._networks = networks
        self._config = config

    async def ensure_network(self) -> tuple[str, str]:
        """The bridge pods are on, made when it is missing: its link and its subnet."""
        try:
            network = self._networks.get(NETWORK)
        except NotFound:
            body = {"Name": NETWORK, "Labels": {"io.kubernetes.role": "pods"}}
            subnets = [f"10.{244 + step}.0.0/16" for step in range(12)]
            taken = self._taken()
            chosen = next((subnet for subnet in subnets if subnet not in taken), None)
            try:
                await self._networks.create({**body, "IPAM": {"Config": [{"Subnet": chosen}]}} if chosen else body)
            except AtollError as error:
                log.info("pods do not get %s (%s)", chosen, error)
                await self._networks.create(body)
            network = self._networks.get(NETWORK)
        return network.bridge, network.subnet

    def _taken(self) -> set[str]:
        """Subnets of /16 below 10/8 that the host has a route to."""
        found = set()
        for line in Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]:
            destination = int(line.split()[1], 16).to_bytes(4, "little")
            if destination[0] == 10:
                found.add(f"10.{destination[1]}.0.0/16")
        return found

    async def remove_network(self) -> None:
        """Idempotent; no pod may be on it any more."""
        await self._networks.reconcile((), scope=SCOPE)
        try:
            await self._networks.remove(NETWORK)
        except NotFound:
            return

    def find(self, pod: Object) -> Sandbox | None:
        """The pod's sandbox, if it still stands."""
        uid = pod["metadata"]["uid"]
        try:
            kept = orjson.loads(PodDirectory.of(self._instance, uid).sandbox.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return None
        if pod["spec"].get("hostNetwork"):
            return Sandbox(kept["id"], self._config.address, None)
        path = self._netns(uid)
        seats = self._networks.endpoints(uid)
        if not seats or not kernel_netns.is_alive(path):
            return None
        return Sandbox(kept["id"], seats[0].address, path)

    async def make(self, pod: Object) -> Sandbox:
        """Namespace, address, host ports, files. On failure nothing is left."""
        meta = pod["metadata"]
        directory = PodDirectory.of(self._instance, meta["uid"])
        directory.root.mkdir(parents=True, exist_ok=True, mode=0o750)
        identity = secrets.token_hex(16)
        if pod["spec"].get("hostNetwork"):
            sandbox = Sandbox(identity, self._config.address, None)
        else:
            await self.remove(meta["uid"])
            path = await self._networks.create_netns(meta["uid"], scope=SCOPE)
            try:
                seat = await self._networks.attach(
                    meta["uid"], NETWORK, netns=path, name=meta["name"], ports=host_ports(pod), names=False, scope=SCOPE
                )
            except BaseException:
                await self._networks.delete_netns(meta["uid"], scope=SCOPE)
                raise
            sandbox = Sandbox(identity, seat.address, path)
        self._write_files(pod, sandbox, directory)
        directory.sandbox.write_bytes(orjson.dumps({"id": identity, "name": meta["name"], "namespace": meta["namespace"]}))
        return sandbox

    async def remove(self, uid: str) -> None:
        """Idempotent."""
        await self._networks.detach_all(uid)
        await self._networks.delete_netns(uid, scope=SCOPE)
        await asyncio.to_thread(PodDirectory.of(self._instance, uid).sandbox.unlink, missing_ok=True)

    def known(self) -> set[str]:
        """Uids of pods that have a namespace."""
        directory = self._netns("x").parent
        return set(os.listdir(directory)) if directory.is_dir() else set()

    def place(self, pod: Object, sandbox: Sandbox) -> Place:
        """For the pod's containers."""
        etc = PodDirectory.of(self._instance, pod["metadata"]["uid"]).etc
        names = {"hosts": "/etc/hosts", "resolv.conf": "/etc/resolv.conf", "hostname": "/etc/hostname"}
        return Place(
            sandbox=sandbox.id,
            network="host" if sandbox.netns is None else f"netns:{sandbox.netns}",
            hostname=hostname_of(pod, self._config.cluster_domain),
            domainname="",
            files=tuple(Mount(etc / name, target) for name, target in names.items()),
        )

    def _write_files(self, pod: Object, sandbox: Sandbox, directory: PodDirectory) -> None:
        spec, domain = pod["spec"], self._config.cluster_domain
        directory.etc.mkdir(exist_ok=True)
        hostname = hostname_of(pod, domain)
        on_host = sandbox.netns is None
        subdomain = spec.get("subdomain")
        fqdn = f"{short_name(pod)}.{subdomain}.{pod['metadata']['namespace']}.svc.{domain}" if subdomain else ""
        text = (HOSTS_HEAD_HOST if on_host else HOSTS_HEAD) + hosts_file(
            hostname,
            () if on_host else (sandbox.address,),
            domainname=fqdn.partition(".")[2] if fqdn and not spec.get("setHostnameAsFQDN") else "",
            host_network=on_host,
        )
        if spec.get("hostAliases"):
            entries = (f"{alias['ip']}\t{chr(9).join(alias.get('hostnames') or ())}\n" for alias in spec["hostAliases"])
            text += "\n# Entries added by HostAliases.\n" + "".join(entries)
        (directory.etc / "hosts").write_text(text)
        (directory.etc / "hostname").write_text(hostname + "\n")
        servers = (self._config.cluster_dns,) if self._config.cluster_dns else ()
        resolv = pod_resolv_conf(spec, pod["metadata"]["namespace"], cluster_dns=servers, domain=domain)
        (directory.etc / "resolv.conf").write_text(resolv)
        for path in directory.etc.iterdir():
            path.chmod(0o644)

    def _netns(self, uid: str) -> Path:
        return self._instance.run / "netns" / SCOPE / uid


def short_name(pod: Object) -> str:
    name = str(pod["spec"].get("hostname") or pod["metadata"]["name"])
    return name[:HOSTNAME_MAX].rstrip("-.")


def hostname_of(pod: Object, domain: str) -> str:
    """What `hostname` prints inside. A pod on the host's network has the host's."""
    spec = pod["spec"]
    if spec.get("hostNetwork"):
        return os.uname().nodename
    name = short_name(pod)
    if spec.get("setHostnameAsFQDN") and spec.get("subdomain"):
        return f"{name}.{spec['subdomain']}.{pod['metadata']['namespace']}.svc.{domain}"
    return name


def host_ports(pod: Object) -> list[PortBinding]:
    ports = (port for container in pod["spec"]["containers"] for port in container.get("ports") or () if port.get("hostPort"))
    return [
        PortBinding(port["containerPort"], port.get("protocol", "TCP").lower(), port.get("hostIP") or "", port["hostPort"])
        for port in ports
    ]
