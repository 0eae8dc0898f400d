"""--link on the default bridge, as Docker has kept it: names in /etc/hosts, variables that tell of the other container, and a second name
("/web/db") under which the link itself is listed and removed. On other networks the name service knows links, and this is not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from atoll.engine.containers.config import parse_port
from atoll.engine.containers.record import Container
from atoll.errors import Conflict, NotFound

_NOT_PASSED_ON = frozenset({"HOME", "PATH"})


def aliased(links: Iterable[str] | None) -> Iterator[tuple[str, str]]:
    """Alias and name of each "name:alias" or "name"."""
    for link in links or ():
        name, _, alias = link.partition(":")
        yield alias or name, name


def address_of(container: Container, alias: str, other: Container) -> str:
    """Where the default bridge has the other one. Raises Conflict where it does not run."""
    address = (other.record.endpoints.get("bridge") or {}).get("IPAddress")
    if not address:
        raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{container.name}/{alias}")
    return str(address)


def hosts_entries(container: Container, others: Mapping[str, Container]) -> list[str]:
    """Every name of each linked container as "name:address"; `others` by alias."""
    found = []
    for alias, other in others.items():
        address = address_of(container, alias, other)
        found += [f"{known}:{address}" for known in dict.fromkeys((alias, other.record.config["Hostname"], other.name))]
    return found


def environment(container: Container, others: Mapping[str, Container]) -> list[str]:
    """DB_NAME, DB_PORT, DB_PORT_5432_TCP_ADDR, DB_ENV_X ... for each linked container."""
    found: dict[str, str] = {}
    for alias, other in others.items():
        prefix, address = alias.upper().replace("-", "_"), address_of(container, alias, other)
        found[f"{prefix}_NAME"] = f"/{container.name}/{alias}"
        ports = sorted(parse_port(port) for port in other.record.config["ExposedPorts"] or ())
        for number, protocol in ports:
            url = f"{protocol}://{address}:{number}"
            found.setdefault(f"{prefix}_PORT", url)
            found |= _port(f"{prefix}_PORT_{number}_{protocol.upper()}", url, address, number, protocol)
        for item in other.record.config["Env"] or ():
            name, separator, value = item.partition("=")
            if separator and name not in _NOT_PASSED_ON:
                found[f"{prefix}_ENV_{name}"] = value
    return [f"{name}={value}" for name, value in found.items()]


def _port(prefix: str, url: str, address: str, number: int, protocol: str) -> dict[str, str]:
    return {prefix: url, f"{prefix}_ADDR": address, f"{prefix}_PORT": str(number), f"{prefix}_PROTO": protocol}


def names(containers: Iterable[Container]) -> dict[str, list[str]]:
    """What containers are called by those that link to them: by name, such as {"db": ["/web/db"]}."""
    found: dict[str, list[str]] = {}
    for container in containers:
        for alias, name in aliased(container.record.host["Links"]):
            found.setdefault(name.removeprefix("/"), []).append(f"/{container.name}/{alias}")
    return found


def without(container: Container, alias: str) -> dict[str, Any]:
    """The container's HostConfig without the link. Raises NotFound."""
    host = container.record.host
    left = [link for link in host["Links"] or () if next(aliased([link]))[0] != alias]
    if len(left) == len(host["Links"] or ()):
        raise NotFound(f"Could not get parent /{container.name} for link /{container.name}/{alias}: no such link")
    return {**host, "Links": left or None}
