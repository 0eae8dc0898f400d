"""Registry credentials as clients send them: base64url of a JSON object in a header."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from atoll.errors import InvalidInput
from atoll.http import Request
from atoll.images.reference import DEFAULT_DOMAIN

HEADER_MAX = 64 * 1024  # bytes, decoded: cloud tokens run to several KB


def decode(header: str, name: str) -> dict[str, Any]:
    """The object, with or without its padding. Raises InvalidInput naming the header."""
    try:
        text = header.replace("+", "-").replace("/", "_").rstrip("=")
        value = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)[:HEADER_MAX] or b"{}")
    except (binascii.Error, ValueError, RecursionError) as error:
        raise InvalidInput(f"invalid {name} header: it must be base64url-encoded JSON") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"invalid {name} header: it must be a JSON object")
    return value


def registry_auth(request: Request) -> dict[str, Any] | None:
    """X-Registry-Auth; None where there is nothing in it. Raises InvalidInput."""
    header = request.headers.get("x-registry-auth")
    value = decode(header, "X-Registry-Auth") if header else {}
    return {name: item for name, item in value.items() if item} or None


def stored_auths(request: Request) -> Callable[[str], Awaitable[dict[str, Any] | None]]:
    """X-Registry-Config: all logins the client has, by registry. Raises InvalidInput."""
    header = request.headers.get("x-registry-config")
    auths = {registry_key(name): auth for name, auth in decode(header, "X-Registry-Config").items()} if header else {}

    async def lookup(domain: str) -> dict[str, Any] | None:
        return auths.get(domain)

    return lookup


def registry_key(address: str) -> str:
    """The registry's domain, from how a client's configuration names it: "https://index.docker.io/v1/", "localhost:5000"."""
    host = urlsplit(address if "://" in address else f"//{address}").netloc
    return DEFAULT_DOMAIN if host in {"index.docker.io", "registry-1.docker.io", ""} else host
