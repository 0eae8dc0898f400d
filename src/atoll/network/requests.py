"""POST /networks/create: from the request's body to a Network, or to an error that says what is wrong with it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from atoll import units
from atoll.errors import Conflict, Forbidden, InvalidInput, NotFound, NotSupported
from atoll.kernel.rtnetlink import IFNAME_MAX
from atoll.network import ipam, ipv6
from atoll.network.links import OPTION_BRIDGE_NAME, OPTION_MTU, bridge_name, default_bridge_name
from atoll.network.model import PREDEFINED, Network
from atoll.network.rules import OPTION_ICC, OPTION_MASQUERADE

_NAME_MAX = 255  # bytes; ours: enough for compose's longest, and it shows in every list
_KNOWN_DRIVERS = ("overlay", "macvlan", "ipvlan")
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}")
_BRIDGE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{IFNAME_MAX - 1}}}")
_SYSCTL_WORDS = ("all", "default")  # under /proc/sys/net/ipv4/conf these mean every link
_MTU_MIN, _MTU_MAX = 68, 65535  # RFC 791; the kernel's own for a veth


def network_from_body(body: Mapping[str, Any], networks: Collection[Network], host: Collection[IPv4Network], instance_id: str) -> Network:
    """`networks` are those that exist, `host` what the host has routes to. Raises InvalidInput, Conflict, Forbidden, NotFound or
    NotSupported.
    """
    name = _name(body.get("Name"))
    if name in PREDEFINED:
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    if any(network.name == name for network in networks):
        raise Conflict(f"network with name {name} already exists")
    _refuse_unsupported(body)
    config, config6, ipam_options = _ipam(body.get("IPAM"))
    auxiliary6 = _strings(config6.get("AuxiliaryAddresses") or config6.get("AuxAddress"), "IPAM.Config.AuxiliaryAddresses")
    fields6 = ipv6.network_fields(config6, auxiliary6, networks, instance_id) if body.get("EnableIPv6") else {}
    options = _strings(body.get("Options"), "Options")
    _check_options(options)
    subnet = ipam.parse_subnet(config["Subnet"]) if config.get("Subnet") else None
    if subnet is None and (config.get("Gateway") or config.get("IPRange")):
        raise InvalidInput("invalid IPAM configuration: a gateway or an address range needs its subnet")
    is_subnet_ours = subnet is None
    if subnet is None:
        subnet = ipam.choose_subnet([*host, *(IPv4Network(network.subnet) for network in networks if network.subnet)])
    ipam.check_subnet(subnet, networks)
    identity = secrets.token_hex(32)
    bridge = options.get(OPTION_BRIDGE_NAME) or bridge_name(instance_id, identity)
    if any(network.bridge == bridge for network in networks):
        raise Conflict(f"bridge name {bridge} is already used by another network")
    return Network(
        id=identity,
        name=name,
        driver="bridge",
        created=units.timestamp(),
        subnet=str(subnet),
        gateway=_gateway(config.get("Gateway"), subnet),
        ip_range=_range(config.get("IPRange"), subnet),
        auxiliary=_auxiliary(config.get("AuxiliaryAddresses") or config.get("AuxAddress"), subnet),
        bridge=bridge,
        internal=bool(body.get("Internal")),
        attachable=bool(body.get("Attachable")),
        labels=_strings(body.get("Labels"), "Labels"),
        options=options,
        ipam_options=ipam_options,
        is_subnet_ours=is_subnet_ours,
        **fields6,
    )


def unused_subnet(body: Mapping[str, Any]) -> str:
    """A warning where a subnet of IPv6 is given for a network without: Docker passes it over, too."""
    _, config6, _ = _ipam(body.get("IPAM"))
    if body.get("EnableIPv6") or not config6:
        return ""
    return f"{config6.get('Subnet')} is not used: the network has no IPv6 (--ipv6, enable_ipv6)"


def predefined_networks(networks: Collection[Network], host: Collection[IPv4Network], instance_id: str) -> list[Network]:
    """Those of bridge, host and none that are missing from `networks`."""
    missing = [name for name in PREDEFINED if not any(network.name == name for network in networks)]
    made = []
    for name in missing:
        identity, created = secrets.token_hex(32), units.timestamp()
        if name != "bridge":
            made.append(Network(id=identity, name=name, driver={"none": "null"}.get(name, name), created=created))
            continue
        subnet = ipam.choose_subnet([*host, *(IPv4Network(network.subnet) for network in networks if network.subnet)])
        bridge = default_bridge_name(instance_id)
        options = {
            "com.docker.network.bridge.default_bridge": "true",
            OPTION_ICC: "true",
            OPTION_MASQUERADE: "true",
            "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
            OPTION_BRIDGE_NAME: bridge,
        }
        made.append(
            Network(
                id=identity,
                name=name,
                driver="bridge",
                created=created,
                subnet=str(subnet),
                gateway=str(subnet[1]),
                bridge=bridge,
                options=options,
                is_subnet_ours=True,
            )
        )
    return made


def moved_network(network: Network, networks: Collection[Network], host: Collection[IPv4Network]) -> Network:
    """The network on another subnet, where its own was our choice and is now the host's or another instance's; else as it is."""
    subnet = IPv4Network(network.subnet) if network.subnet else None
    if subnet is None or not network.is_subnet_ours or not any(subnet.overlaps(other) for other in host):
        return network
    taken = [IPv4Network(other.subnet) for other in networks if other.subnet and other.id != network.id]
    chosen = ipam.choose_subnet([*host, *taken])
    return replace(network, subnet=str(chosen), gateway=str(chosen[1]))


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput("invalid name: name is empty")
    if len(value.encode(errors="replace")) > _NAME_MAX or "/" in value or not value.isprintable() or value != value.strip():
        raise InvalidInput(
            f"invalid network name {value[:80]!r}: at most {_NAME_MAX} bytes, without slashes, control characters or outer blanks"
        )
    return value


def _refuse_unsupported(body: Mapping[str, Any]) -> None:
    driver = body.get("Driver") or "bridge"
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver in _KNOWN_DRIVERS:
        raise NotSupported(f"network driver {driver} is not supported yet: use bridge")
    if driver != "bridge":
        raise NotFound(f"could not find plugin {driver} in v1 plugin registry: plugin not found")
    if body.get("EnableIPv4") is False:
        raise NotSupported("networks without IPv4 are not supported yet")
    for field in ("Ingress", "ConfigOnly"):
        if body.get(field):
            raise NotSupported(f"{field} networks belong to swarm, which is not supported")
    if body.get("Scope") not in (None, "", "local"):
        raise NotSupported(f"network scope {body['Scope']} belongs to swarm, which is not supported")


def _ipam(value: object) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """The one IPv4 configuration, the one of IPv6, and the options."""
    if value is None:
        return {}, {}, {}
    if not isinstance(value, Mapping):
        raise InvalidInput("invalid IPAM configuration: it must be an object")
    if value.get("Driver") not in (None, "", "default"):
        raise NotSupported(f"IPAM driver {value['Driver']} is not supported: use default")
    configs = [config for config in value.get("Config") or [] if config]
    if not all(isinstance(config, Mapping) for config in configs):
        raise InvalidInput("invalid IPAM configuration: Config must be a list of objects")
    families: tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]] = ([], [])
    for config in configs:
        families[":" in str(config.get("Subnet") or config.get("Gateway") or config.get("IPRange") or "")].append(config)
    if any(len(family) > 1 for family in families):
        raise NotSupported("more than one subnet of a family in a bridge network is not supported")
    first, second = (dict(family[0]) if family else {} for family in families)
    return first, second, _strings(value.get("Options"), "IPAM.Options")


def _check_options(options: Mapping[str, str]) -> None:
    mtu = options.get(OPTION_MTU)
    if mtu is not None and not (mtu.isascii() and mtu.isdigit() and _MTU_MIN <= int(mtu) <= _MTU_MAX):
        raise InvalidInput(f"invalid {OPTION_MTU} {mtu!r}: it must be a number from {_MTU_MIN} to {_MTU_MAX}")
    bridge = options.get(OPTION_BRIDGE_NAME)
    if bridge and (not _BRIDGE.fullmatch(bridge) or bridge in _SYSCTL_WORDS):
        raise InvalidInput(f"invalid {OPTION_BRIDGE_NAME} {bridge!r}: at most {IFNAME_MAX} letters, digits, dashes and underscores")
    for key in (OPTION_ICC, OPTION_MASQUERADE):
        if options.get(key, "true").lower() not in ("1", "t", "true", "0", "f", "false"):
            raise InvalidInput(f"invalid {key} {options[key]!r}: it must be true or false")


def _gateway(value: object, subnet: IPv4Network) -> str:
    if not value:
        if subnet.prefixlen > 30:
            raise InvalidInput(f"subnet {subnet} is too small for a gateway and a container: use /30 or larger")
        return str(subnet[1])
    gateway = ipam.parse_address(str(value))
    if gateway not in subnet:
        raise InvalidInput(f"no matching subnet for gateway {gateway}: the subnet is {subnet}")
    return str(gateway)


def _range(value: object, subnet: IPv4Network) -> str:
    if not value:
        return ""
    within = ipam.parse_subnet(str(value))
    if not within.subnet_of(subnet):
        raise InvalidInput(f"no matching subnet for range {within}: the subnet is {subnet}")
    return str(within)


def _auxiliary(value: object, subnet: IPv4Network) -> dict[str, str]:
    found = _strings(value, "IPAM.Config.AuxiliaryAddresses")
    for name, address in found.items():
        if ipam.parse_address(address) not in subnet:
            raise InvalidInput(f"no matching subnet for aux-address {name}={address}: the subnet is {subnet}")
    return found


def _strings(value: object, what: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidInput(f"{what} must be an object whose values are strings")
    return dict(value)


def check_mac(mac: str) -> None:
    """Raises InvalidInput unless it is a unicast Ethernet address, written with colons or dashes."""
    if not _MAC.fullmatch(mac) or int(mac[1], 16) & 1 or not int(re.sub("[:-]", "", mac), 16):
        raise InvalidInput(f"invalid MAC address {mac!r}: it must be a unicast address such as 02:42:ac:11:00:02")
