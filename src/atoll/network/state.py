"""Networks and endpoints on disk, so that they outlive the engine's kill -9.

Networks stand in one file, synced to disk: a user made them. Endpoints are one small file each, written without a sync: attaching a
container
costs the same whatever else runs, and a power cut ends the containers anyway. Both are replaced by rename, so that a reader sees the old
or the new.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import orjson

from atoll.config import Instance
from atoll.errors import AtollError, NotFound
from atoll.network.model import Endpoint, Network, endpoint_from_json

logger = logging.getLogger(__name__)


class State:
    """What exists, in memory and on disk alike. Nothing here touches the kernel's networking."""

    def __init__(self, instance: Instance) -> None:
        self.networks: dict[str, Network] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.version = 0  # counts changes, for those who keep something derived
        self._file = instance.network / "networks.json"
        self._directory = instance.network / "endpoints"

    def load(self) -> None:
        """Raises AtollError where the file of networks cannot be read; an unreadable endpoint is dropped, its container is not live."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self.networks = {value["id"]: Network(**value) for value in orjson.loads(self._file.read_bytes())}
        except FileNotFoundError:
            self.networks = {}
        except (ValueError, TypeError, KeyError) as error:
            raise AtollError(f"{self._file} is damaged ({error}): move it away to start without the networks you made") from error
        self.endpoints = {}
        for path in self._directory.iterdir():
            try:
                endpoint = endpoint_from_json(orjson.loads(path.read_bytes()))
            except (ValueError, TypeError, KeyError) as error:
                logger.warning("dropping unreadable endpoint %s: %s", path.name, error)
                path.unlink()
                continue
            self.endpoints[endpoint.id] = endpoint
        self.version += 1

    def put_network(self, network: Network) -> None:
        self.networks[network.id] = network
        self.version += 1
        self._save_networks()

    def drop_network(self, network_id: str) -> None:
        del self.networks[network_id]
        self.version += 1
        self._save_networks()

    def put_endpoint(self, endpoint: Endpoint) -> None:
        self.endpoints[endpoint.id] = endpoint
        self.version += 1
        _replace(self._directory / endpoint.id, orjson.dumps(endpoint), sync=False)

    def drop_endpoint(self, endpoint_id: str) -> None:
        self.endpoints.pop(endpoint_id, None)
        self.version += 1
        (self._directory / endpoint_id).unlink(missing_ok=True)

    def find(self, ref: str) -> Network:
        """By full id, then name, then a prefix of the id that only one has, as the Engine API looks networks up. NotFound else."""
        if ref in self.networks:
            return self.networks[ref]
        for network in self.networks.values():
            if network.name == ref:
                return network
        found = [network for network in self.networks.values() if ref and network.id.startswith(ref)]
        if len(found) == 1:
            return found[0]
        raise NotFound(f"network {ref} is ambiguous ({len(found)} matches found on ID prefix)" if found else f"network {ref} not found")

    def on_network(self, network_id: str) -> Iterator[Endpoint]:
        return (endpoint for endpoint in self.endpoints.values() if endpoint.network_id == network_id)

    def of_container(self, container_id: str) -> list[Endpoint]:
        """In order of attachment."""
        mine = [endpoint for endpoint in self.endpoints.values() if endpoint.container_id == container_id]
        return sorted(mine, key=lambda endpoint: int(endpoint.ifname.removeprefix("eth") or 0))

    def _save_networks(self) -> None:
        _replace(self._file, orjson.dumps(list(self.networks.values()), option=orjson.OPT_INDENT_2), sync=True)


def _replace(path: Path, data: bytes, *, sync: bool) -> None:
    temporary = path.with_name(f".{path.name}.new") if sync else path.parent.parent / f".{path.name}.new"
    with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.rename(temporary, path)
