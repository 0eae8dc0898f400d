"""HostConfig.LogConfig: the drivers there are, the options each takes, and what they say of rotation.

All drivers write the keeper's one format; they differ in their limits and in what may be read back, as Docker's do. Options that only
choose Docker's encoding or its buffering (compress, mode, max-buffer-size) are checked and kept: the keeper never blocks on a reader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from atoll import units
from atoll.errors import InvalidInput

LOG_DRIVERS = ("json-file", "local", "none")
_COMMON = frozenset({"max-size", "max-file", "compress", "mode", "max-buffer-size"})
_OPTIONS: Mapping[str, frozenset[str]] = {
    "json-file": _COMMON | {"labels", "labels-regex", "env", "env-regex", "tag"},
    "local": _COMMON,
}
_LOCAL_SIZE, _LOCAL_FILES = "20m", "5"  # the driver local rotates by itself


def log_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """The LogConfig of a container with its default. Raises InvalidInput with Docker's words."""
    kind, options = given.get("Type") or "json-file", given.get("Config") or {}
    if kind not in LOG_DRIVERS:
        raise InvalidInput(f"logger: no log driver named '{kind}' is registered")  # word for word, as clients' tests have it
    if not isinstance(options, dict) or not all(isinstance(value, str) for value in options.values()):
        raise InvalidInput("invalid JSON: field HostConfig.LogConfig.Config: must map strings to strings")
    if kind in _OPTIONS:
        for name in options:
            if name not in _OPTIONS[kind]:
                raise InvalidInput(f"unknown log opt '{name}' for {kind} log driver: it takes {', '.join(sorted(_OPTIONS[kind]))}")
        _check(options)
    return {"Type": kind, "Config": options}


def _check(options: Mapping[str, str]) -> None:
    for name in ("max-size", "max-buffer-size"):
        if name in options and not _is_size(options[name]):
            raise InvalidInput(f"invalid log option {name}: {options[name]}: it must be a positive size such as 10m")
    if not re.fullmatch(r"0*[1-9][0-9]{0,3}", options.get("max-file", "1"), re.ASCII):
        raise InvalidInput(f"invalid log option max-file: {options['max-file']}: max-file cannot be less than 1 or over 9999")
    if options.get("compress", "false").lower() not in {"true", "false", "1", "0", "t", "f"}:
        raise InvalidInput(f"invalid log option compress: {options['compress']}: write true or false")
    if options.get("mode", "blocking") not in {"blocking", "non-blocking"}:
        raise InvalidInput(f"logger: logging mode not supported: {options['mode']}")
    if "max-buffer-size" in options and options.get("mode") != "non-blocking":
        raise InvalidInput("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    for name in ("labels-regex", "env-regex"):
        compiled(options, name)


def _is_size(text: str) -> bool:
    try:
        return units.parse_bytes(text) > 0
    except InvalidInput:
        return False


def rotation(log: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Bytes a file may take and files in all; None where the log grows without a limit."""
    options = log["Config"]
    size, count = options.get("max-size"), options.get("max-file")
    if log["Type"] == "local":
        size, count = size or _LOCAL_SIZE, count or _LOCAL_FILES
    return (units.parse_bytes(size), int(count or 1)) if size else (None, None)


def compiled(options: Mapping[str, str], name: str) -> re.Pattern[str] | None:
    """The regular expression that an option is. Raises InvalidInput where it is none."""
    if not options.get(name):
        return None
    try:
        return re.compile(options[name])
    except re.error as error:
        raise InvalidInput(f"invalid log option {name}: {error}") from error
