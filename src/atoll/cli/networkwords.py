"""--network and what goes with it, --publish and --expose: the NetworkingConfig and the ports of a create request."""

from __future__ import annotations

from atoll.cli.flags import Options, UsageError
from atoll.cli.keyvalues import fields, mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

PROTOCOLS = ("tcp", "udp", "sctp")


def network_name(word: str) -> str:
    """The network of `--network web` or `--network name=web,alias=front`."""
    if "=" not in word:
        return word
    name = next((part.partition("=")[2] for part in fields(word) if part.startswith("name=")), "")
    if not name:
        raise UsageError(f'invalid argument "{word}" for "--network" flag: network name/id is not specified')
    return name


def endpoints(options: Options) -> dict[str, Any]:
    """EndpointsConfig: the flags beside --network speak of the first one."""
    words = options["network"] + options["net"]
    found = {network_name(word): _endpoint(word) for word in words}
    beside = _beside(options)
    if beside:
        first = network_name(words[0]) if words else "default"
        settings = found.setdefault(first, {})
        both = sorted(set(settings) & set(beside))
        if both:
            raise UsageError(f'conflicting options: cannot specify {both[0]} both by a flag of its own and in --network "{words[0]}"')
        settings.update(beside)
    return found


def _beside(options: Options) -> dict[str, Any]:
    addresses = {"IPv4Address": options["ip"], "IPv6Address": options["ip6"], "LinkLocalIPs": options["link-local-ip"]}
    settings = {
        "Aliases": options["network-alias"],
        "Links": options["link"],
        "IPAMConfig": {name: value for name, value in addresses.items() if value},
        "MacAddress": options["mac-address"],
    }
    return {name: value for name, value in settings.items() if value}


def _endpoint(word: str) -> dict[str, Any]:
    """The settings in one long --network."""
    settings: dict[str, Any] = {}
    for part in fields(word) if "=" in word else ():
        key, _, value = part.strip().partition("=")
        if key == "name":
            continue
        if key == "alias":
            settings.setdefault("Aliases", []).append(value)
        elif key in ("ip", "ip6"):
            settings.setdefault("IPAMConfig", {})["IPv4Address" if key == "ip" else "IPv6Address"] = value
        elif key == "link-local-ip":
            settings.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(value)
        elif key == "mac-address":
            settings["MacAddress"] = value
        elif key == "driver-opt":
            settings.setdefault("DriverOpts", {}).update(mapping([value]))
        elif key == "gw-priority" and value.lstrip("-").isdigit():
            settings["GwPriority"] = int(value)
        else:
            raise UsageError(f'invalid argument "{word}" for "--network" flag: invalid field {part}')
    return settings


def ports(options: Options) -> tuple[dict[str, Any], dict[str, Any]]:
    """ExposedPorts and PortBindings of --expose and --publish."""
    exposed: dict[str, Any] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for word in options["expose"]:
        inside, _, protocol = word.partition("/")
        for port in _range(inside, word):
            exposed[f"{port}/{_protocol(protocol)}"] = {}
    for word in options["publish"]:
        for published, binding in parse_publish(word):
            exposed[published] = {}
            bindings.setdefault(published, []).append(binding)
    return exposed, bindings


def _protocol(name: str) -> str:
    name = name.lower() or "tcp"
    if name not in PROTOCOLS:
        raise UsageError(f"invalid proto: {name}")
    return name


def _range(text: str, word: str) -> range:
    first, _, last = text.partition("-")
    if not (first.isascii() and first.isdigit() and (not last or (last.isascii() and last.isdigit()))):
        raise UsageError(f"invalid containerPort: {word}")
    low, high = int(first), int(last or first)
    if not 0 < low <= high < 65536:
        raise UsageError(f"invalid port: {word}: ports are 1 to 65535, ranges rise")
    return range(low, high + 1)


def parse_publish(word: str) -> Iterable[tuple[str, dict[str, str]]]:
    """`-p [ip:][host[-last]:]container[-last][/protocol]` or `target=80,published=8080`, one pair for each port."""
    if "=" in word:
        word = _short(word)
    rest, _, protocol = word.partition("/")
    protocol = _protocol(protocol)
    rest, _, inside = rest.rpartition(":")
    address, outside = "", ""
    if rest.startswith("["):
        address, _, outside = rest[1:].partition("]")
        outside = outside.removeprefix(":")
    elif rest:
        address, _, outside = rest.rpartition(":")
    if address and not _is_address(address):
        raise UsageError(f"invalid IP address: {address}")
    container = _range(inside, word)
    if not outside:
        return [(f"{port}/{protocol}", {"HostIp": address, "HostPort": ""}) for port in container]
    host = _range(outside, word)
    if len(container) == 1 and len(host) > 1:
        return [(f"{container[0]}/{protocol}", {"HostIp": address, "HostPort": outside})]
    if len(container) != len(host):
        raise UsageError(f"invalid ranges specified for container and host Ports: {inside} and {outside}")
    pairs = zip(container, host, strict=True)
    return [(f"{port}/{protocol}", {"HostIp": address, "HostPort": str(to)}) for port, to in pairs]


def _short(word: str) -> str:
    """The short form of `target=80,published=8080,protocol=tcp`."""
    parts = mapping(fields(word))
    if unknown := sorted(set(parts) - {"target", "published", "protocol", "mode"}):
        raise UsageError(f"invalid publish opts format (should be name=value but got '{unknown[0]}')")
    outside = f"{parts['published']}:" if parts.get("published") else ""
    return f"{outside}{parts.get('target', '')}/{parts.get('protocol') or 'tcp'}"


def _is_address(text: str) -> bool:
    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except OSError:
            continue
        return True
    return False
