"""What an API server is started with. All paths are files the caller (the cluster's life cycle) has made; nothing is generated here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll.store.gateway import EtcdTls

SERVICE_CIDR = IPv4Network("10.96.0.0/12")  # upstream's and minikube's
VERSION = "v1.36.0"  # the Kubernetes release whose API is served; helm and client-go parse it as semver


@dataclass(frozen=True, slots=True)
class StaticToken:
    """A bearer token known from the start, as kubeadm's bootstrap tokens are."""

    user: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiServerConfig:
    """Certificates are PEM.

    `client_ca` signs client certificates (CN is the user, O the groups); `serving_cert` and `serving_key` are this server's own;
    `kubelet_cert`, `kubelet_key` and `kubelet_ca` are for calls to kubelets. `service_account_key` (private, RSA or EC P-256) signs
    service-account tokens. `cluster_ca` is handed out as kube-root-ca.crt by its controller; the server itself does not read it.
    `authentication` is an AuthenticationConfiguration: issuers of OpenID Connect, and who may be anonymous. `front_proxy_ca` signs the
    certificates of proxies that name their users in headers, `front_proxy_names` are the common names these may have. `proxy_client` are
    certificate and key by which aggregated API servers know this one as such a proxy.
    `audit_policy` (audit.k8s.io/v1 Policy) says what goes into `audit_log`; both or neither.
    """

    store: Path | str  # a file, or etcd://host:port, or etcds://host:port with `etcd_tls`
    bind_address: str = "0.0.0.0"
    port: int = 6443
    advertise_address: str = "127.0.0.1"
    advertise_port: int | None = None  # of the `kubernetes` endpoints; by default the port listened on
    serving_cert: Path | None = None
    serving_key: Path | None = None
    client_ca: Path | None = None
    service_account_key: Path | None = None
    service_account_issuer: str = "https://kubernetes.default.svc.cluster.local"
    kubelet_cert: Path | None = None
    kubelet_key: Path | None = None
    kubelet_ca: Path | None = None
    service_cidr: IPv4Network = SERVICE_CIDR
    node_ports: range = range(30_000, 32_768)
    tokens: Mapping[str, StaticToken] = field(default_factory=dict)
    max_in_flight: int = 600  # upstream's --max-requests-inflight and --max-mutating-requests-inflight together
    authentication: Path | None = None
    front_proxy_ca: Path | None = None
    front_proxy_names: tuple[str, ...] = ()
    proxy_client: tuple[Path, Path] | None = None
    audit_policy: Path | None = None
    audit_log: Path | None = None
    audit_log_megabytes: int = 100
    audit_log_backups: int = 10
    event_ttl_s: int = 3600  # upstream's --event-ttl
    compact_interval_s: float = 300.0
    etcd_tls: EtcdTls | None = None
