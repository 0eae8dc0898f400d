"""Which certificates a cluster has, under which names, for which addresses (kubeadm, "PKI certificates and requirements")."""

from __future__ import annotations

from pathlib import Path

from atoll.cluster.pki import Leaf, Pki
from atoll.cluster.settings import ClusterSettings
from atoll.config import Instance

FRONT_PROXY = "front-proxy-client"  # kubeadm's common name


class Certificates:
    """Files below cluster/pki; each is made when first asked for."""

    def __init__(self, instance: Instance, settings: ClusterSettings) -> None:
        self._pki = Pki(instance.cluster / "pki")
        self._front_proxies = Pki(instance.cluster / "pki" / "front-proxy", "front-proxy-ca")
        self._settings = settings

    @property
    def authority(self) -> Path:
        return self._pki.ca

    @property
    def signing(self) -> tuple[Path, Path]:
        """What approved certificate requests are signed with."""
        return self._pki.ca, self._pki.ca_key

    def api_server(self) -> tuple[Path, Path]:
        settings = self._settings
        service = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{settings.cluster_domain}")
        hosts = dict.fromkeys((settings.node_name, *service, "localhost", settings.api_service_ip, "127.0.0.1", settings.node_ip))
        return self._pki.leaf(Leaf("apiserver", "kube-apiserver", hosts=tuple(hosts), client=False))

    def kubelet_client(self) -> tuple[Path, Path]:
        """The API server's own, for calls to kubelets."""
        return self._pki.leaf(Leaf("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ("system:masters",)))

    @property
    def front_proxy_authority(self) -> Path:
        """Signs who may name users by headers; an authority of its own, or every client certificate could."""
        return self._front_proxies.ca

    def front_proxy(self) -> tuple[Path, Path]:
        """The API server's own, for calls to aggregated API servers."""
        return self._front_proxies.leaf(Leaf("front-proxy-client", FRONT_PROXY))

    def admin(self) -> tuple[Path, Path]:
        return self._pki.leaf(Leaf("admin", "kubernetes-admin", ("system:masters",)))

    def node(self) -> tuple[Path, Path]:
        """The kubelet's, for calls to the API server."""
        name = self._settings.node_name
        return self._pki.leaf(Leaf("kubelet-client", f"system:node:{name}", ("system:nodes",)))

    def node_serving(self) -> tuple[Path, Path]:
        """The kubelet's own API."""
        settings = self._settings
        hosts = tuple(dict.fromkeys((settings.node_name, settings.node_ip, "127.0.0.1")))
        return self._pki.leaf(Leaf("kubelet-server", f"system:node:{settings.node_name}", hosts=hosts, client=False))

    def service_account_key(self) -> Path:
        return self._pki.signing_key("sa")
