"""The cluster's DNS on this node: in a network namespace of its own on the pods' bridge, at the address its mirror pod shows."""

from __future__ import annotations

from atoll.client.factory import InformerFactory
from atoll.config import Instance
from atoll.kernel import netns as kernel_netns
from atoll.network import Networks
from atoll.node.config import NodeConfig
from atoll.node.dns import ClusterDns
from atoll.node.pods.sandbox import NETWORK

SCOPE = "dns"
NAME = "cluster-dns"


class NameServer:
    def __init__(self, instance: Instance, networks: Networks, config: NodeConfig) -> None:
        self._path = instance.run / "netns" / SCOPE / NAME
        self._networks = networks
        self._dns = ClusterDns(domain=config.cluster_domain)
        self.address = ""

    async def start(self) -> str:
        """Its address. A namespace left by a daemon before this one is taken over, so that the address stays."""
        seats = self._networks.endpoints(NAME)
        if not seats or not kernel_netns.is_alive(self._path):
            await self._networks.detach_all(NAME)
            path = await self._networks.create_netns(NAME, scope=SCOPE)
            seats = [await self._networks.attach(NAME, NETWORK, netns=path, name=NAME, names=False, scope=SCOPE)]
        self.address = seats[0].address
        await self._dns.start(self.address, netns=self._path)
        return self.address

    async def run(self, informers: InformerFactory) -> None:
        await self._dns.run(informers)

    def close(self) -> None:
        self._dns.close()

    async def remove(self) -> None:
        self._dns.close()
        await self._networks.detach_all(NAME)
        await self._networks.delete_netns(NAME, scope=SCOPE)
