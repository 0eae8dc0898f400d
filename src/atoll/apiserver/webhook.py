"""Calls of webhooks, of admission and of conversion alike: JSON posted over TLS to a URL or to a service of the cluster.

A service's certificate must be that of <service>.<namespace>.svc, signed by the client configuration's caBundle where there is one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from atoll.apiserver.core import Core
from atoll.apiserver.services import base_of
from atoll.errors import InvalidInput, Unavailable
from atoll.http import Client

ANSWER_MAX = 8 * 1024 * 1024


def trusting(bundle: str | None) -> ssl.SSLContext:
    """TLS by the authorities of a caBundle (PEM in base64), by the system's where it is empty. Raises InvalidInput."""
    try:
        authority = base64.b64decode(bundle or "", validate=True).decode()
        return ssl.create_default_context(cadata=authority) if authority else ssl.create_default_context()
    except (binascii.Error, UnicodeDecodeError, ssl.SSLError, ValueError) as error:
        raise InvalidInput(f"unable to load root certificates: {error}") from None


async def post(core: Core, config: Mapping[str, Any], body: bytes, seconds: float, query: str = "", answer_max: int = ANSWER_MAX) -> bytes:
    """The answer's body. `config` is a WebhookClientConfig, `query` is added to its path.

    Raises AtollError saying why there is none.
    """
    base, target, hostname = _address(core, config)
    if query:
        target += f"{'&' if '?' in target else '?'}{query}"
    context = trusting(config.get("caBundle"))
    try:
        async with asyncio.timeout(seconds), Client(base, context, server_hostname=hostname, timeout=None) as client:
            answer = await client.request("POST", target, [("Content-Type", "application/json")], body)
            content = await answer.read(answer_max)
    except TimeoutError:
        raise Unavailable(f"{base}{target} did not answer within {seconds:g} s") from None
    if answer.status != 200:
        raise Unavailable(f"the server answered {answer.status}: {content[:200].decode('utf-8', 'replace').strip()}")
    return content


def _address(core: Core, config: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Base URL, target, and the name the certificate must have where it is not the URL's host."""
    if config.get("url"):
        url = urlsplit(config["url"])
        if url.scheme != "https":
            raise InvalidInput(f"the webhook's url {config['url']!r} is not an https one")
        return f"https://{url.netloc}", (url.path or "/") + (f"?{url.query}" if url.query else ""), None
    service = config.get("service") or {}
    name, namespace = service.get("name", ""), service.get("namespace", "")
    base = base_of(core, namespace, name, service.get("port") or 443)
    return base, "/" + (service.get("path") or "").lstrip("/"), f"{name}.{namespace}.svc"
