"""etcd's v3 API through its JSON gateway (/v3/kv/..., /v3/watch), which every etcd since 3.4 serves beside gRPC on the same port.

Of the API only what a store needs: range, compare-and-swap, watch, compaction. Keys and values travel in base64, 64-bit numbers as
strings. Several endpoints are members of one etcd: a call goes to one of them, and to the next once that one could not be reached.
Over TLS (etcds://) the members are verified by their authority, and know us by our certificate (etcd's --client-cert-auth).
"""

from __future__ import annotations

import ssl
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from atoll.errors import InvalidInput, Unavailable
from atoll.http import Client, ClientResponse, Disconnected

SCHEMES = {"etcd://": "http", "etcds://": "https"}
DEFAULT_PORT = 2379
TIMEOUT_S = 10.0
LINE_MAX = 64 << 20  # one message of a watch: etcd puts what it has at hand into one, requests are 1.5 MB at most
_OUT_OF_RANGE = 11  # gRPC's code: the revision is compacted, or has not come yet
_GATEWAY_SHUT_OUT = "connection closed"
_ALL = b"\0"  # as key and range_end: every key


class HistoryGone(Exception):
    """The revision has been compacted; `revision` is the oldest that is kept, 0 where etcd did not say. The store makes `Compacted` of it,
    knowing what was asked.
    """

    def __init__(self, revision: int) -> None:
        super().__init__(f"compacted up to {revision}")
        self.revision = revision


class KeyValue(NamedTuple):
    key: str
    value: bytes
    revision: int


class Event(NamedTuple):
    """`value` is None for a delete; `before` is what it replaced, where it was asked for."""

    revision: int
    key: str
    value: bytes | None
    is_new: bool
    before: KeyValue | None


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """Files of PEM: whom to trust (the system's authorities where there is none), and who we are; names as kube-apiserver's options."""

    cafile: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Raises InvalidInput naming the file that cannot be used."""
        if (self.certfile is None) != (self.keyfile is None):
            raise InvalidInput("a certificate for etcd goes with its key: give both --etcd-certfile and --etcd-keyfile")
        try:
            context = ssl.create_default_context(cafile=self.cafile)
        except OSError as error:  # an SSLError is one
            raise InvalidInput(f"etcd's authority {self.cafile} cannot be read: {error.strerror or error}") from None
        if self.certfile is not None:
            try:
                context.load_cert_chain(self.certfile, self.keyfile)
            except OSError as error:
                told = f"the certificate for etcd, {self.certfile} with key {self.keyfile}, cannot be used"
                raise InvalidInput(f"{told}: {error.strerror or error}") from None
        return context


class Gateway:
    """`location` is etcd://host:port, or several with commas between; etcds:// where they speak TLS, to which `tls` belongs."""

    def __init__(self, location: str, tls: EtcdTls | None = None) -> None:
        scheme = next((scheme for scheme in SCHEMES if location.startswith(scheme)), "")
        hosts = [host for host in location.removeprefix(scheme).rstrip("/").split(",") if host]
        if not scheme or not hosts or any("/" in host or "@" in host for host in hosts):
            raise InvalidInput(f"{location!r} names no etcd: write etcd://host:port, or several with commas between; etcds:// for TLS")
        secure = SCHEMES[scheme] == "https"
        if tls is not None and not secure:
            raise InvalidInput(f"certificates are given for {location}, which is reached without TLS: write etcds:// in its place")
        context = (tls or EtcdTls()).context() if secure else None
        self.location = location
        bases = [f"{SCHEMES[scheme]}://{host}" if ":" in host else f"{SCHEMES[scheme]}://{host}:{DEFAULT_PORT}" for host in hosts]
        self._clients = [Client(base, context, timeout=TIMEOUT_S) for base in bases]
        self._chosen = 0

    async def revision(self) -> int:
        """The newest revision, agreed on by a majority of members."""
        return _revision(await self._call("/v3/kv/range", {"key": _encoded(_ALL), "count_only": True}))

    async def range(self, key: str, end: str, revision: int, limit: int) -> tuple[list[KeyValue], bool]:
        """The first keys from `key` to before `end` at a revision, and whether there are more. Raises HistoryGone."""
        asked = {"key": _text(key), "range_end": _text(end), "revision": str(revision), "limit": str(limit)}
        answer = await self._call("/v3/kv/range", asked)
        return [_key_value(kv) for kv in answer.get("kvs") or ()], bool(answer.get("more"))

    async def swap(self, key: str, value: bytes | None, expected: int) -> tuple[int, int]:
        """Put or delete `key` if its last write was at `expected` (0: there is none).

        Etcd's revision afterwards, which is the key's new one, and the key's actual revision where the comparison failed, else -1.
        """
        name = _text(key)
        change = {"request_delete_range": {"key": name}} if value is None else {"request_put": {"key": name, "value": _encoded(value)}}
        compare = {"key": name, "target": "MOD", "result": "EQUAL", "mod_revision": str(expected)}
        asked = {"compare": [compare], "success": [change], "failure": [{"request_range": {"key": name}}]}
        answer = await self._call("/v3/kv/txn", asked)
        if answer.get("succeeded"):
            return _revision(answer), -1
        found = answer["responses"][0]["response_range"].get("kvs")
        return _revision(answer), int(found[0]["mod_revision"]) if found else 0

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`. Raises HistoryGone where somebody has done so already."""
        await self._call("/v3/kv/compaction", {"revision": str(revision)})

    async def watch(self, after: int, *, with_before: bool = False) -> AsyncIterator[list[Event]]:
        """All changes of all keys above `after`, until broken off (Unavailable); nothing first, once it stands. Raises HistoryGone."""
        # From `after` itself: asked for the next one, etcd would not say that a deletion there has been compacted away.
        create = {"key": _encoded(_ALL), "range_end": _encoded(_ALL), "start_revision": str(max(after, 1)), "prev_kv": with_before}
        try:
            async with await self._send("/v3/watch", {"create_request": create}) as response:
                async for message in _lines(response):
                    result = message.get("result") or {}
                    if result.get("canceled"):
                        raise HistoryGone(int(result.get("compact_revision") or 0))
                    if "error" in message:
                        raise Unavailable(f"{self.location} broke off a watch: {message['error'].get('message')}")
                    events = [event for raw in result.get("events") or () if (event := _event(raw)).revision > after]
                    if events or result.get("created"):
                        yield events
        except Disconnected as error:
            raise Unavailable(f"{self.location} broke off a watch: {error}") from None
        raise Unavailable(f"{self.location} ended a watch")

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    async def _call(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        async with await self._send(path, asked) as response:
            try:
                answer: dict[str, Any] = orjson.loads(await response.read())
            except (Disconnected, orjson.JSONDecodeError) as error:
                raise Unavailable(f"{self.location} broke off its answer to {path}: {error}") from None
        if response.status != 200:
            if answer.get("code") == _OUT_OF_RANGE:
                raise HistoryGone(0)
            why = answer.get("error") or response.status
            if why == _GATEWAY_SHUT_OUT:
                why = f"{why} (etcd's gateway calls etcd with the server's certificate: it must be one for clients, too, as kubeadm's is)"
            raise Unavailable(f"{self.location} refused {path}: {why}")
        return answer

    async def _send(self, path: str, asked: dict[str, Any]) -> ClientResponse:
        client = self._clients[self._chosen]
        try:
            return await client.request("POST", path, (("Content-Type", "application/json"),), orjson.dumps(asked))
        except Unavailable:
            # What was sent may have been done, so it is not said again to another member: that is the caller's to decide.
            self._chosen = (self._clients.index(client) + 1) % len(self._clients)
            raise


async def _lines(response: ClientResponse) -> AsyncIterator[dict[str, Any]]:
    pending: list[bytes] = []
    size = 0
    async for piece in response:
        *whole, rest = piece.split(b"\n")
        for line in whole:
            text = b"".join((*pending, line))
            pending, size = [], 0
            if text:
                yield orjson.loads(text)
        if rest:
            pending.append(rest)
            size += len(rest)
            if size > LINE_MAX:
                raise Unavailable(f"a message of a watch is larger than {LINE_MAX} bytes")


def _event(raw: dict[str, Any]) -> Event:
    kv = raw["kv"]
    deleted = raw.get("type") == "DELETE"
    before = _key_value(raw["prev_kv"]) if "prev_kv" in raw else None
    value = None if deleted else b64decode(kv.get("value") or "")
    return Event(int(kv["mod_revision"]), _name(kv["key"]), value, kv.get("version") == "1", before)


def _key_value(raw: dict[str, Any]) -> KeyValue:
    return KeyValue(_name(raw["key"]), b64decode(raw.get("value") or ""), int(raw["mod_revision"]))


def _name(encoded: str) -> str:
    return b64decode(encoded).decode(errors="surrogateescape")  # others may keep other things in the same etcd


def _revision(answer: dict[str, Any]) -> int:
    return int(answer["header"]["revision"])


def _text(key: str) -> str:
    return _encoded(key.encode(errors="surrogateescape"))


def _encoded(raw: bytes) -> str:
    return b64encode(raw).decode()


def key_after(keys: Sequence[KeyValue]) -> str:
    """Where the next page of a range begins."""
    return keys[-1].key + "\0"
