"""Forward proxies, as the environment names them: HTTP_PROXY, HTTPS_PROXY, NO_PROXY, in capitals or not.

TLS goes through a tunnel (CONNECT, RFC 9110, 9.3.6), plain HTTP as a request for the absolute address (RFC 9112, 3.2.2). NO_PROXY is read
as Go's programs read it, docker among them: names with their subdomains, .subdomains, addresses, networks, each with a port or without,
and "*". This machine's own addresses are never asked through a proxy.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from atoll.errors import InvalidInput, Unavailable

HEAD_MAX = 64 << 10  # bytes of a proxy's answer to CONNECT
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """`authorization` is the value of Proxy-Authorization, "" for none."""

    host: str
    port: int
    authorization: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """`http://[user:password@]host[:port]`, or without the scheme. Raises InvalidInput."""
        url = urlsplit(text if "://" in text else f"http://{text}")
        if url.scheme != "http" or not url.hostname:
            raise InvalidInput(f"proxy {url.scheme}://{url.netloc.rpartition('@')[2]} cannot be used: only http://host:port is known")
        authorization = ""
        if url.username:
            pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
            authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(url.hostname, url.port or PORTS["http"], authorization)


def proxy_for(address: str, environ: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy for `scheme://host[:port]`; None where there is none, or NO_PROXY excepts it. Raises InvalidInput."""
    env = os.environ if environ is None else environ
    url = urlsplit(address)
    name = f"{url.scheme}_proxy"
    named = env.get(name) or env.get(name.upper())
    if url.scheme not in PORTS or not named:
        return None
    excepted = env.get("no_proxy") or env.get("NO_PROXY") or ""
    return None if _is_excepted(url.hostname or "", url.port or PORTS[url.scheme], excepted) else Proxy.parse(named)


async def tunnel(proxy: Proxy, host: str, port: int) -> socket.socket:
    """A connection to host and port by way of the proxy. Raises Unavailable naming the proxy."""
    loop = asyncio.get_running_loop()
    try:
        family, kind, number, _, where = (await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM))[0]
        sock = socket.socket(family, kind, number)
    except OSError as error:
        raise Unavailable(f"cannot reach the proxy {proxy}: {error.strerror or error}") from error
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, where)
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        fields = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
        await loop.sock_sendall(sock, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{fields}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = await loop.sock_recv(sock, 4096)
            if not data or len(head) > HEAD_MAX:
                raise Unavailable(f"the proxy {proxy} broke off on the way to {target}")
            head += data
        status = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)[1:]
        if status[:1] == ["407"]:
            raise Unavailable(f"the proxy {proxy} wants a user and password: write http://user:password@{proxy} in HTTPS_PROXY")
        if not status or not status[0].startswith("2"):
            raise Unavailable(f"the proxy {proxy} gives no way to {target}: {' '.join(status) or 'no status'}")
    except OSError as error:
        sock.close()
        raise Unavailable(f"cannot reach the proxy {proxy}: {os.strerror(error.errno) if error.errno else error}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def _is_excepted(host: str, port: int, rules: str) -> bool:
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for rule in rules.replace(" ", ",").split(","):
        name, colon, number = rule.strip().lower().rpartition(":")
        if not colon or not number.isdigit() or "]" in number or name.count(":") > 0:
            name, number = rule.strip().lower(), ""
        if name and (not number or int(number) == port) and _matches(host.lower(), address, name):
            return True
    return False


def _matches(host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, rule: str) -> bool:
    if rule == "*":
        return True
    if address is not None:
        try:
            return address in ipaddress.ip_network(rule.strip("[]"), strict=False)
        except ValueError:
            return False
    bare = rule.removeprefix("*")
    return host.endswith(bare) if bare.startswith(".") else host == bare or host.endswith(f".{bare}")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
