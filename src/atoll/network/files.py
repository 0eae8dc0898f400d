"""What a container reads about its network: /etc/hosts and /etc/resolv.conf, by Docker's rules."""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.errors import InvalidInput

EMBEDDED_DNS = "127.0.0.11"  # where Docker's users expect it
FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")  # Docker's, where the host names only loopback servers
SYSTEMD_STUB_UPSTREAM = Path("/run/systemd/resolve/resolv.conf")  # the real servers behind systemd-resolved's 127.0.0.53
HOST_GATEWAY = "host-gateway"
_HOSTS_HEAD = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


@dataclass(frozen=True, slots=True)
class Resolver:
    """A parsed resolv.conf(5)."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@functools.lru_cache(maxsize=8)  # each container that starts reads the host's
def parse_resolv_conf(text: str) -> Resolver:
    """The last search or domain line wins, options add up; what cannot be read is passed over, as the C library does."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        match words:
            case ["nameserver", address, *_] if _is_address(address):
                servers.append(address)
            case ["search" | "domain", *domains]:
                search = tuple(domains)
            case ["options", *more]:
                options += more
            case _:
                continue
    return Resolver(tuple(servers), search, tuple(options))


def host_resolver(path: Path = Path("/etc/resolv.conf"), stub_upstream: Path = SYSTEMD_STUB_UPSTREAM) -> Resolver:
    """The host's resolver; where it names nothing but loopback servers, the servers behind systemd-resolved when they are known."""
    resolver = _read(path)
    if all(_is_loopback(server) for server in resolver.servers):
        behind = _read(stub_upstream)
        if any(not _is_loopback(server) for server in behind.servers):
            return Resolver(behind.servers, behind.search or resolver.search, resolver.options)
    return resolver


def container_servers(host: Resolver) -> tuple[str, ...]:
    """Servers a container can reach: a loopback address would be its own loopback."""
    return tuple(server for server in host.servers if not _is_loopback(server)) or FALLBACK_SERVERS


def resolv_conf_file(
    host: Resolver | None = None,
    *,
    embedded: bool = False,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    host_network: bool = False,
) -> str:
    """The container's /etc/resolv.conf. `embedded` on networks a user made; the lists are --dns, --dns-search (one "." means none) and
    --dns-option.

    Raises InvalidInput for a server that is no address.
    """
    host = host_resolver() if host is None else host
    for server in servers:
        if not _is_address(server):
            raise InvalidInput(f"invalid DNS server {server!r}: it must be an IP address")
    if embedded:
        chosen: tuple[str, ...] = (EMBEDDED_DNS,)
    elif servers:
        chosen = tuple(servers)
    else:
        chosen = host.servers if host_network else container_servers(host)
    domains = () if list(search) == ["."] else tuple(search) or host.search
    settings = tuple(options) or host.options
    if embedded and not any(option.startswith("ndots") for option in settings):
        settings = (*settings, "ndots:0")  # Docker's: container names have no dot, and must reach the embedded server as they are
    lines = [f"nameserver {server}" for server in chosen]
    if domains:
        lines.append("search " + " ".join(_one_line(domain) for domain in domains))
    if settings:
        lines.append("options " + " ".join(_one_line(option) for option in settings))
    return "\n".join(lines) + "\n"


def hosts_file(
    hostname: str,
    addresses: Iterable[str],
    *,
    domainname: str = "",
    extra_hosts: Iterable[str] = (),
    gateway: str = "",
    host_network: bool = False,
) -> str:
    """The container's /etc/hosts. `extra_hosts` are --add-host entries "name:address" or "name=address", where the address may be
    "host-gateway".

    Raises InvalidInput for an entry that cannot be read.
    """
    base = _read_text(Path("/etc/hosts")) if host_network else _HOSTS_HEAD
    lines = [base if not base or base.endswith("\n") else base + "\n"]
    for entry in extra_hosts:
        name, address = _extra_host(entry)
        if address == HOST_GATEWAY:
            if not gateway:
                raise InvalidInput(f'unable to derive the IP value for host-gateway (--add-host "{entry}"): the container has no network')
            address = gateway
        lines.append(f"{address}\t{name}\n")
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines += [f"{address}\t{_one_line(names)}\n" for address in addresses if address]
    return "".join(lines)


def host_gateway(bridge_gateway: str) -> str:
    """What "host-gateway" means: the default bridge's gateway, or, on a host without one, the address the host itself would go out by."""
    if bridge_gateway:
        return bridge_gateway
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: connecting a datagram socket sends nothing
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _extra_host(entry: str) -> tuple[str, str]:
    name, separator, address = entry.partition("=") if "=" in entry else entry.partition(":")
    address = address.strip("[]") if address.startswith("[") else address
    valid_name = name and not any(character.isspace() or character == "#" for character in name)
    if not separator or not valid_name or not (address == HOST_GATEWAY or _is_address(address)):
        raise InvalidInput(f'bad format for add-host: "{entry}": write name:address')
    return name, address


def _one_line(text: str) -> str:
    if any(character in text for character in "\n\r\0"):
        raise InvalidInput(f"{text!r} must be one line")
    return text


def _read(path: Path) -> Resolver:
    return parse_resolv_conf(_read_text(path))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # a host without the file has no servers and no names of its own
        return ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(server: str) -> bool:
    return ipaddress.ip_address(server).is_loopback
