"""A container's environment: values, references to ConfigMaps, Secrets and the pod itself, services, and $(NAME) inside them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping

from atoll.client.objects import Object
from atoll.client.resources import CONFIG_MAPS, SECRETS, Resource
from atoll.errors import InvalidInput
from atoll.node.pods.fields import field_value, resource_value

Fetch = Callable[[Resource, str], Awaitable[Object | None]]  # an object of the pod's namespace by name; None where there is none

STRING_MAX = 128 << 10  # the kernel's MAX_ARG_STRLEN: of one argument, or one variable
TOTAL_MAX = 6 << 20  # of all together, whatever the limit of the stack (execve(2))

_REFERENCE = re.compile(r"\$(\$|\(([^()$]*)\))")
_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*", re.ASCII)


class ConfigError(InvalidInput):
    """What a container's spec refers to is not there: CreateContainerConfigError."""


def expand(text: str, values: Mapping[str, str]) -> str:
    """$(NAME) to its value, $$ to $; a name that is not known stays as it is written (core/v1 EnvVar).

    Raises ConfigError where that makes more than a program can be given: thirty variables, each twice the one before, are a gigabyte.
    """
    room = STRING_MAX - len(text)

    def one(match: re.Match[str]) -> str:
        nonlocal room
        value = "$" if match[1] == "$" else values.get(match[2], match[0])
        room -= len(value) - len(match[0])
        if room < 0:
            raise ConfigError(f"{text[:40]!r} expands to more than the {STRING_MAX} bytes of an argument or a variable")
        return value

    return _REFERENCE.sub(one, text) if "$" in text else text


def expand_all(texts: Iterable[str], values: Mapping[str, str]) -> list[str]:
    """Raises ConfigError where one of them, or all together, are more than a program can be given."""
    room = _Room()
    return [room.take(expand(text, values)) for text in texts]


class _Room:
    def __init__(self) -> None:
        self._left = TOTAL_MAX

    def take(self, value: str) -> str:
        self._left -= len(value)
        if self._left < 0:
            raise ConfigError(f"arguments or variables come to more than the {TOTAL_MAX} bytes that a program can be given")
        return value


async def environment(
    pod: Object,
    container: Object,
    *,
    fetch: Fetch,
    services: Iterable[Object],
    addresses: Mapping[str, str],
    allocatable: Mapping[str, str],
) -> dict[str, str]:
    """By name, in the order in which later ones win: services, envFrom, env. Raises ConfigError naming what is missing, or too much."""
    values = service_variables(services, pod["metadata"]["namespace"], links=pod["spec"].get("enableServiceLinks", True))
    for source in container.get("envFrom") or ():
        values |= await _all_of(source, fetch)
    room = _Room()
    for variable in container.get("env") or ():
        name = variable["name"]
        if "valueFrom" not in variable:
            values[name] = room.take(expand(variable.get("value") or "", values))
            continue
        value = await _value_from(pod, container, variable["valueFrom"], fetch, addresses, allocatable)
        if value is not None:
            values[name] = room.take(value)
    return values


async def _all_of(source: Object, fetch: Fetch) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for field, resource, decode in (("configMapRef", CONFIG_MAPS, False), ("secretRef", SECRETS, True)):
        reference = source.get(field)
        if reference is None:
            continue
        found = await fetch(resource, reference["name"])
        if found is None:
            if reference.get("optional"):
                return {}
            raise ConfigError(f'{resource.kind.lower()} "{reference["name"]}" not found')
        data = found.get("data") or {}
        named = {prefix + key: (decoded(value) if decode else value) for key, value in data.items()}
        return {name: value for name, value in named.items() if _NAME.fullmatch(name)}
    return {}


async def _value_from(
    pod: Object, container: Object, source: Object, fetch: Fetch, addresses: Mapping[str, str], allocatable: Mapping[str, str]
) -> str | None:
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"], addresses=addresses)
    if "resourceFieldRef" in source:
        return resource_value(pod, source["resourceFieldRef"], container, allocatable)
    for field, resource, decode in (("configMapKeyRef", CONFIG_MAPS, False), ("secretKeyRef", SECRETS, True)):
        reference = source.get(field)
        if reference is None:
            continue
        found = await fetch(resource, reference["name"])
        value = ((found or {}).get("data") or {}).get(reference["key"])
        if value is not None:
            return decoded(value) if decode else str(value)
        if reference.get("optional"):
            return None
        if found is None:
            raise ConfigError(f'{resource.kind.lower()} "{reference["name"]}" not found')
        where = f"{pod['metadata']['namespace']}/{reference['name']}"
        raise ConfigError(f"couldn't find key {reference['key']} in {resource.kind} {where}")
    raise ConfigError(f"invalid valueFrom: {', '.join(source) or 'empty'} is not supported")


def decoded(value: str) -> str:
    return secret_bytes(value).decode(errors="surrogateescape")


def secret_bytes(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"a value of the secret is not base64: {error}") from error


def service_variables(services: Iterable[Object], namespace: str, *, links: bool) -> dict[str, str]:
    """The Docker-links style variables of each service with an address: the pod's namespace's, and the API's own always."""
    chosen: dict[str, Object] = {}
    for service in services:
        meta = service["metadata"]
        is_api = meta["name"] == "kubernetes" and meta["namespace"] == "default"
        is_own = meta["namespace"] == namespace
        if (is_own and (links or is_api)) or (is_api and meta["name"] not in chosen) or (links and is_own):
            chosen[meta["name"]] = service
    values: dict[str, str] = {}
    for name, service in sorted(chosen.items()):
        address = service["spec"].get("clusterIP")
        ports = service["spec"].get("ports") or ()
        if address in (None, "", "None") or not ports:
            continue
        values |= _links(name.upper().replace("-", "_"), str(address), ports)
    return values


def _links(name: str, address: str, ports: Iterable[Object]) -> dict[str, str]:
    found: dict[str, str] = {f"{name}_SERVICE_HOST": address}
    for index, port in enumerate(ports):
        number, protocol = str(port["port"]), str(port.get("protocol") or "TCP")
        url = f"{protocol.lower()}://{address}:{number}"
        if index == 0:
            found |= {f"{name}_SERVICE_PORT": number, f"{name}_PORT": url}
        if port.get("name"):
            found[f"{name}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = number
        link = f"{name}_PORT_{number}_{protocol}"
        found |= {link: url, f"{link}_PROTO": protocol.lower(), f"{link}_PORT": number, f"{link}_ADDR": address}
    return found
