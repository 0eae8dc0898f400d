"""What a cluster was started with, kept in `cluster.json` so that a restart, and every verb, sees the same."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from atoll.cluster.pki import write_private
from atoll.config import Instance
from atoll.errors import InvalidInput, NotFound, NotSupported
from atoll.kernel.nftables import Nftables
from atoll.store.gateway import EtcdTls

DEFAULT_API_PORT = 6443
DEFAULT_SERVICE_CIDR = "10.96.0.0/12"  # kubeadm's
PID_FILE = "controlplane.pid"  # below the cluster's directory
STORE = "store.db"
DNS_OFFSET = 10  # the tenth address of the service range is the name service's, by convention
CLUSTER_DOMAIN = "cluster.local"
PROXY_TABLE = re.compile(r"atoll_[0-9a-f]{8}_kube")
ADDRESS = re.compile(r"\b10(?:\.\d{1,3}){3}\b")


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Addresses and names of one cluster."""

    node_name: str
    node_ip: str
    api_port: int
    service_cidr: str = DEFAULT_SERVICE_CIDR
    cluster_domain: str = CLUSTER_DOMAIN
    store: str = ""  # etcd://host:port where the objects are kept there; else in a file of the instance
    etcd_cafile: str = ""  # absolute paths: read at each start, so that renewed certificates are taken up
    etcd_certfile: str = ""
    etcd_keyfile: str = ""

    def store_in(self, instance: Instance) -> Path | str:
        return self.store or instance.cluster / STORE

    @property
    def etcd_tls(self) -> EtcdTls | None:
        files = [Path(file) if file else None for file in (self.etcd_cafile, self.etcd_certfile, self.etcd_keyfile)]
        return EtcdTls(*files) if any(files) else None

    @property
    def server(self) -> str:
        return f"https://{self.node_ip}:{self.api_port}"

    @property
    def services(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.service_cidr)

    @property
    def api_service_ip(self) -> str:
        return str(self.services[1])

    @property
    def dns_ip(self) -> str:
        return str(self.services[DNS_OFFSET])

    def save(self, instance: Instance) -> None:
        write_private(_path(instance), json.dumps(dataclasses.asdict(self), indent=1).encode())

    @classmethod
    def load(cls, instance: Instance) -> ClusterSettings:
        """Raises NotFound where there is no cluster, InvalidInput where its file cannot be read."""
        path = _path(instance)
        try:
            return cls(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            raise NotFound("there is no cluster: start one with `atoll cluster start`") from None
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"{path} cannot be read ({error}): delete the cluster with `atoll cluster delete`") from error


def _path(instance: Instance) -> Path:
    return instance.cluster / "cluster.json"


def host_address() -> str:
    """The address other machines reach this one at: the source of the default route. 127.0.0.1 where there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737: a datagram socket's connect sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def pick_service_cidr() -> str:
    """The range kubeadm gives, or the next one where another cluster on this host serves it already."""
    served = _served()
    for second in range(96, 240, 16):
        network = ipaddress.IPv4Network(f"10.{second}.0.0/12")
        if str(network[1]) not in served:
            return str(network)
    raise InvalidInput("every range for services from 10.96.0.0/12 to 10.224.0.0/12 is taken on this host: delete a cluster first")


def _served() -> frozenset[str]:
    """Addresses that the service proxies of all instances answer for; each serves `kubernetes` at the first of its range."""
    try:
        with Nftables() as nftables:
            listing = json.loads(nftables.query("list tables"))["nftables"]
            tables = [row["table"] for row in listing if "table" in row and PROXY_TABLE.fullmatch(row["table"]["name"])]
            texts = [nftables.query(f"list table {table['family']} {table['name']}") for table in tables]
    except NotSupported:
        return frozenset()
    return frozenset(address for text in texts for address in ADDRESS.findall(text))


def node_name() -> str:
    """The machine's name as a DNS label: lower case, letters, digits and dashes."""
    name = "".join(char if char.isalnum() and char.isascii() else "-" for char in socket.gethostname().split(".")[0].lower()).strip("-")
    return name[:63].strip("-") or "atoll"


def free_port(preferred: int) -> int:
    """PREFERRED if nothing listens there, else one the kernel picks."""
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise InvalidInput(f"port {preferred} is taken and no other is free")
