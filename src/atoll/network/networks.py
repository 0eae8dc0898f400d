"""Networks of an instance, in the shapes and words of the Docker Engine API."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from atoll.config import Instance
from atoll.network.model import Endpoint, Network, PortBinding

OnEvent = Callable[[str, Network, dict[str, str]], None]  # action (create, connect, disconnect, destroy), network, extra attributes


class Networks:
    """`start` first. Every method raises of atoll.errors: NotFound, Conflict, InUse, InvalidInput, Forbidden, SystemFailure."""

    def __init__(self, instance: Instance, *, on_event: OnEvent | None = None, resolv_conf: Path = Path("/etc/resolv.conf")) -> None:
        raise NotImplementedError

    async def start(self, live: Collection[str] = ()) -> None:
        """Loads the state, makes the default bridge, and reconciles: endpoints of scope "engine" whose container is not in `live` are taken away;
        those that are live keep addresses, ports and names (listeners are opened again)."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stops serving names and relayed ports. Links and rules stay: containers run on while the engine is restarted."""
        raise NotImplementedError

    async def destroy(self) -> None:
        """Takes away all that the instance has in the kernel: links, namespaces, rules. For `atoll engine stop` and tests."""
        raise NotImplementedError

    async def reconcile(self, live: Collection[str], *, scope: str = "engine") -> None:
        """Takes away endpoints (and namespaces) of `scope` whose container id is not in `live`."""
        raise NotImplementedError

    # Networks, Docker API-shaped

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /networks/create body to {"Id", "Warning"}."""
        raise NotImplementedError

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, Any]]:
        raise NotImplementedError

    def inspect(self, ref: str, *, containers: bool = True) -> dict[str, Any]:
        raise NotImplementedError

    def get(self, ref: str) -> Network:
        """By id, name or unambiguous id prefix."""
        raise NotImplementedError

    async def remove(self, ref: str) -> Network:
        raise NotImplementedError

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """{"NetworksDeleted": [names]}."""
        raise NotImplementedError

    # Namespaces

    async def create_netns(self, container_id: str, *, scope: str = "engine") -> Path:
        """A namespace with `lo` up, bind-mounted at run/netns/<scope>/<container_id>."""
        raise NotImplementedError

    async def delete_netns(self, container_id: str, *, scope: str = "engine") -> None:
        """Idempotent."""
        raise NotImplementedError

    # Endpoints

    async def attach(
        self,
        container_id: str,
        network: str,
        *,
        netns: Path | None = None,
        name: str = "",
        aliases: Sequence[str] = (),
        ipv4: str | None = None,
        mac: str | None = None,
        ports: Sequence[PortBinding] = (),
        priority: int = 0,
        dns: Sequence[str] = (),
        scope: str = "engine",
    ) -> Endpoint:
        """Seats the container: address, veth pair, routes, ports, names. On failure nothing is left. `netns` None only for "host" and "none".

        `dns` are the container's own upstream servers (--dns) for the embedded name service.
        """
        raise NotImplementedError

    async def detach(self, container_id: str, network: str) -> None:
        """NotFound when the container is not on it."""
        raise NotImplementedError

    async def detach_all(self, container_id: str) -> None:
        """Idempotent; what the engine calls when a container has stopped."""
        raise NotImplementedError

    async def rename(self, container_id: str, name: str) -> None:
        raise NotImplementedError

    def endpoints(self, container_id: str) -> list[Endpoint]:
        """In order of attachment: eth0 first."""
        raise NotImplementedError

    def ports(self, container_id: str) -> dict[str, list[dict[str, str]]]:
        """NetworkSettings.Ports of what is published: {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", ...}]}."""
        raise NotImplementedError
