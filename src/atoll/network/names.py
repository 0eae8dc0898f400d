"""The embedded name service: 127.0.0.11 inside every container on a network that a user made.

Its sockets are opened inside the container's namespace and served by the engine's loop, so which container asks needs no guessing. They
stand at a port of the kernel's choice, and a rule in the namespace leads port 53 there: a container may well run a name server of its own
on 0.0.0.0:53. A name is answered from the networks the asking container is on, its own links first; everything else goes to its upstream
servers by way of the host, unless all its networks are internal: then nothing leaves, not even a question (CVE-2024-29018).

What reads and writes messages (`answers`, `dns_server`, dnspython) is loaded with the first container that has names.
"""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.errors import NotSupported
from atoll.kernel import netns
from atoll.kernel.nftables import Nftables, NftablesError
from atoll.network.files import EMBEDDED_DNS
from atoll.network.model import Endpoint
from atoll.network.state import State

if TYPE_CHECKING:
    from atoll.network.answers import Answers
    from atoll.network.dns_server import DnsServer

logger = logging.getLogger(__name__)

_TABLE = "atoll_names"


class NameService:
    """One server a container. `add` and `remove` follow its endpoints."""

    def __init__(self, state: State, resolv_conf: Path) -> None:
        self._state = state
        self._resolv_conf = resolv_conf
        self._servers: dict[str, DnsServer] = {}
        self._answers: Answers | None = None

    async def add(self, endpoint: Endpoint) -> None:
        """Serves the endpoint's container from now on. Raises SystemFailure where its namespace is gone."""
        if not endpoint.has_names or endpoint.container_id in self._servers:
            return
        udp, tcp = netns.call(Path(endpoint.netns), _open_sockets)
        if self._answers is None:
            from atoll.network.answers import Answers

            self._answers = Answers(self._state, self._resolv_conf)
        server = self._answers.server(endpoint.container_id)
        await server.start(udp, tcp)
        self._servers[endpoint.container_id] = server

    async def remove(self, endpoint: Endpoint) -> None:
        """Stops serving with the container's last endpoint that has names; call while the endpoint is still in the state."""
        others = (other for other in self._state.of_container(endpoint.container_id) if other.id != endpoint.id and other.has_names)
        if any(others):
            return
        if server := self._servers.pop(endpoint.container_id, None):
            server.close()

    async def close(self) -> None:
        for server in self._servers.values():
            server.close()
        self._servers.clear()


def _open_sockets() -> tuple[socket.socket, socket.socket]:
    """Runs inside the container's namespace."""
    from atoll.network.dns_server import bound_sockets

    try:
        with Nftables() as nft:
            udp, tcp = bound_sockets(EMBEDDED_DNS, 0)
            try:
                nft.run(_redirect(udp.getsockname()[1], tcp.getsockname()[1]))
            except BaseException:
                udp.close()
                tcp.close()
                raise
    except (NotSupported, NftablesError) as error:
        logger.info("no redirection of port 53, taking the port itself: %s", error)
        udp, tcp = bound_sockets(EMBEDDED_DNS, 53)
    return udp, tcp


def _redirect(udp_port: int, tcp_port: int) -> str:
    return f"""
table ip {_TABLE}
delete table ip {_TABLE}
table ip {_TABLE} {{
  chain output {{
    type nat hook output priority -100; policy accept;
    ip daddr {EMBEDDED_DNS} udp dport 53 dnat to {EMBEDDED_DNS}:{udp_port}
    ip daddr {EMBEDDED_DNS} tcp dport 53 dnat to {EMBEDDED_DNS}:{tcp_port}
  }}
}}
"""
