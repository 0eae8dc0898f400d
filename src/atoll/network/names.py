"""The embedded name service."""

from __future__ import annotations

from pathlib import Path

from atoll.network.model import Endpoint
from atoll.network.state import State


class NameService:
    def __init__(self, state: State, resolv_conf: Path) -> None:
        pass

    async def add(self, endpoint: Endpoint) -> None:
        pass

    async def remove(self, endpoint: Endpoint) -> None:
        pass

    async def close(self) -> None:
        pass
