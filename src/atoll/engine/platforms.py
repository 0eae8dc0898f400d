"""Platforms as clients write them: "linux/amd64", "linux/arm/v7", "amd64", "linux", or a JSON object."""

from __future__ import annotations

import orjson

from atoll.errors import InvalidInput
from atoll.images import Platform

_SYSTEMS = frozenset(("linux", "windows", "darwin", "freebsd"))  # one word alone is an architecture but for these


def platform_of(text: str | None) -> Platform | None:
    """None for none. Raises InvalidInput."""
    if not text:
        return None
    if text.startswith("{"):
        try:
            raw = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"invalid platform: {text[:80]}") from error
        return Platform(str(raw.get("os") or "linux"), str(raw.get("architecture") or ""), str(raw.get("variant") or ""))
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(parts):
        raise InvalidInput(f'"{text}" is an invalid platform: write os/architecture or os/architecture/variant')
    if len(parts) == 1:
        here = Platform.of_host()
        return Platform(parts[0], here.architecture, here.variant) if parts[0] in _SYSTEMS else Platform(here.os, parts[0])
    return Platform(parts[0], parts[1], parts[2] if len(parts) == 3 else "")
