"""Whether the server behind an APIService can be reached, and what it serves: one look at it answers both.

The reasons are those of kube-aggregator's availability controller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from atoll.apiserver.aggregation.remote import Remote
from atoll.errors import AtollError

CHECK_S = 5.0  # upstream's bound on a discovery check
TRIES = 3  # each at an endpoint chosen anew: one that has gone does not fail the service
DOCUMENT_MAX = 4 * 1024 * 1024
_JSON = "application/json"


class Health(NamedTuple):
    """The Available condition; and, where the server has answered, its resources in the aggregated form and where its OpenAPI is."""

    status: str
    reason: str
    message: str
    resources: tuple[dict[str, Any], ...] | None = None
    openapi: str = ""


async def examine(remote: Remote) -> Health:
    name, namespace = remote.service, remote.namespace
    found = remote.backends()
    if found.lack:
        reason, message = {
            "service": ("ServiceNotFound", f'service/{name} in "{namespace}" is not present'),
            "type": ("ServiceAccessError", f'service/{name} in "{namespace}" is of type ExternalName, which leads out of the cluster'),
            "port": ("ServicePortError", f'service/{name} in "{namespace}" is not listening on port {remote.port}'),
            "slices": ("EndpointsNotFound", f'cannot find endpointslices for service/{name} in "{namespace}"'),
        }.get(
            found.lack,
            (
                "MissingEndpoints",
                f'endpointslices for service/{name} in "{namespace}" have no addresses with port name "{found.port_name}"',
            ),
        )
        return Health("False", reason, message)
    path = f"/apis/{remote.group}/{remote.version}"
    problem = ""
    try:
        async with asyncio.timeout(CHECK_S):
            for _ in range(TRIES):
                try:
                    url, status, body = await remote.fetch(path, _JSON, CHECK_S, DOCUMENT_MAX)
                except AtollError as error:
                    problem = f"failing or missing response from https://{name}.{namespace}.svc:{remote.port}{path}: {error}"
                    continue
                if 200 <= status < 300:
                    return Health("True", "Passed", "all checks passed", tuple(_resources(remote, body)), await _openapi(remote))
                problem = f"failing or missing response from {url}: bad status from {url}: {status}"
    except TimeoutError:
        problem = problem or f"failing or missing response from {path}: no answer within {CHECK_S:g} s"
    return Health("False", "FailedDiscoveryCheck", problem)


async def _openapi(remote: Remote) -> str:
    """The URL of the version's OpenAPI v3 document, hash included; "" where the server has none."""
    own = f"apis/{remote.group}/{remote.version}"
    try:
        _, status, body = await remote.fetch("/openapi/v3", _JSON, CHECK_S, DOCUMENT_MAX)
        url = orjson.loads(body)["paths"][own]["serverRelativeURL"] if status == 200 else ""
    except (AtollError, orjson.JSONDecodeError, KeyError, TypeError):
        return ""
    return url if isinstance(url, str) and url.partition("?")[0] == f"/openapi/v3/{own}" else ""


def _resources(remote: Remote, body: bytes) -> Iterator[dict[str, Any]]:
    """An APIResourceList in the aggregated form; entries that are none are passed over."""
    try:
        listed = orjson.loads(body)["resources"]
        entries = [entry for entry in listed if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return
    for entry in entries:
        if "/" in entry["name"]:
            continue
        made: dict[str, Any] = {
            "resource": entry["name"],
            "responseKind": _kind(remote, entry),
            "scope": "Namespaced" if entry.get("namespaced") else "Cluster",
            "singularResource": entry.get("singularName") or "",
            "verbs": entry.get("verbs") or [],
        }
        made |= {field: entry[field] for field in ("shortNames", "categories") if entry.get(field)}
        below = [each for each in entries if each["name"].startswith(f"{entry['name']}/")]
        if below:
            made["subresources"] = [
                {"subresource": each["name"].partition("/")[2], "responseKind": _kind(remote, each), "verbs": each.get("verbs") or []}
                for each in below
            ]
        yield made


def _kind(remote: Remote, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "group": entry.get("group") or remote.group,
        "version": entry.get("version") or remote.version,
        "kind": entry.get("kind") or "",
    }
