"""Sessions: connections that clients hand over (POST /session), on which the engine calls back for files, secrets and credentials.

A session says which methods it serves; what it serves lives as long as its connection. The same session may serve several builds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from atoll.build.buildkit import messages
from atoll.build.buildkit.grpc import Channel, Code, RpcError
from atoll.errors import Conflict, NotFound
from atoll.http import Duplex
from atoll.http.http2 import Http2
from atoll.images.reference import DEFAULT_DOMAIN

SECRETS_METHOD = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
WAIT_S = 5.0  # a build may be asked for before its session has come: the reference implementation's


class Session:
    """One client's. METHODS are paths it serves, compared without case; SHARED_KEY names what its files are, from session to session."""

    def __init__(self, identity: str, connection: Http2, methods: Collection[str], shared_key: str) -> None:
        self.id = identity
        self.shared_key = shared_key
        self.channel = Channel(connection)
        self._connection = connection
        self._methods = frozenset(method.lower() for method in methods)

    def serves(self, method: str) -> bool:
        return method.lower() in self._methods

    async def wait_ended(self) -> None:
        await self._connection.wait_ended()

    async def secret(self, name: str) -> bytes | None:
        """None where the client has none of that name."""
        if not self.serves(SECRETS_METHOD):
            return None
        try:
            answer = await self.channel.unary(SECRETS_METHOD, messages.GetSecretRequest(ID=name), messages.GetSecretResponse)
        except RpcError as error:
            if error.code == Code.NOT_FOUND:
                return None
            raise
        data: bytes = answer.data
        return data

    async def credentials_of(self, domain: str) -> dict[str, Any] | None:
        """A registry's, as the Engine API has them; None where the client knows none."""
        host = "registry-1.docker.io" if domain == DEFAULT_DOMAIN else domain  # as clients' configurations are looked through
        method = "/moby.filesync.v1.Auth/Credentials"
        if not self.serves(method):
            return None
        answer = await self.channel.unary(method, messages.CredentialsRequest(Host=host), messages.CredentialsResponse)
        if not answer.Secret:
            return None
        if not answer.Username:
            return {"identitytoken": answer.Secret}
        return {"username": answer.Username, "password": answer.Secret}


class Sessions:
    """Those that are open, by id."""

    def __init__(self) -> None:
        self._open: dict[str, Session] = {}
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def opened(self, identity: str, duplex: Duplex, methods: Collection[str], shared_key: str) -> AsyncIterator[Session]:
        """A session for as long as the block runs. Raises Conflict for an id that is taken."""
        if identity in self._open:
            raise Conflict(f"session {identity} is open already")
        async with Http2(duplex, client=True) as connection:
            session = self._open[identity] = Session(identity, connection, methods, shared_key)
            try:
                async with self._changed:
                    self._changed.notify_all()
                yield session
            finally:
                del self._open[identity]

    async def get(self, identity: str) -> Session:
        """Raises NotFound where none of that id comes in time."""
        try:
            async with asyncio.timeout(WAIT_S), self._changed:
                await self._changed.wait_for(lambda: identity in self._open)
        except TimeoutError:
            raise NotFound(f"no active session for {identity}: the client has gone, or has not opened it within {WAIT_S:g} s") from None
        return self._open[identity]
