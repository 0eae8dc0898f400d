"""--mount, --volume and --tmpfs: what they say, as the Mounts, Binds and Tmpfs of a create request."""

from __future__ import annotations

import os

from atoll.cli.flags import UsageError
from atoll.cli.keyvalues import fields, mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KEYS = {"source": "Source", "src": "Source", "target": "Target", "dst": "Target", "destination": "Target", "consistency": "Consistency"}
PARTS = {"bind": "BindOptions", "volume": "VolumeOptions", "image": "ImageOptions", "tmpfs": "TmpfsOptions"}
TRUTHS = {"true": True, "1": True, "": True, "false": False, "0": False}


def bind(word: str) -> str:
    """`-v ./here:/there` with the host's path made absolute, as only the client knows where here is."""
    source, colon, rest = word.partition(":")
    return f"{os.path.abspath(source)}{colon}{rest}" if source == "." or source.startswith(("./", "../")) or source == ".." else word


def mount(word: str) -> dict[str, Any]:
    """One --mount. Raises UsageError in Docker's words."""
    found: dict[str, Any] = {"Type": "volume"}
    for part in fields(word):
        key, _, value = part.strip().partition("=")
        key = key.lower()
        if key == "type":
            found["Type"] = value.lower()
        elif key in KEYS:
            found[KEYS[key]] = value
        elif key in ("readonly", "ro"):
            found["ReadOnly"] = _truth(word, key, value)
        elif not _option(found, word, key, value):
            raise _wrong(word, f"unexpected key '{key}' in '{part}'")
    if not found.get("Target"):
        raise _wrong(word, "target is required")
    for kind, name in PARTS.items():
        if name in found and found["Type"] != kind:
            raise _wrong(word, f"cannot mix '{kind}-*' options with mount type '{found['Type']}'")
    if found["Type"] == "bind" and found.get("Source", "").startswith("."):
        found["Source"] = os.path.abspath(found["Source"])
    return found


def _option(found: dict[str, Any], word: str, key: str, value: str) -> bool:
    """Takes what belongs to one type of mount; false where KEY is none of these."""
    kind = key.partition("-")[0]
    options: dict[str, Any] = found.setdefault(PARTS[kind], {}) if kind in PARTS and "-" in key else {}
    if key == "bind-propagation":
        options["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        options["NonRecursive"] = _truth(word, key, value)
    elif key == "bind-recursive":
        _recursive(options, word, value)
    elif key == "volume-nocopy":
        options["NoCopy"] = _truth(word, key, value)
    elif key in ("volume-subpath", "image-subpath"):
        options["Subpath"] = value
    elif key == "volume-driver":
        options.setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-label":
        options.setdefault("Labels", {}).update(mapping([value]))
    elif key == "volume-opt":
        options.setdefault("DriverConfig", {}).setdefault("Options", {}).update(mapping([value]))
    elif key == "tmpfs-size":
        options["SizeBytes"] = _size(word, value)
    elif key == "tmpfs-mode":
        try:
            options["Mode"] = int(value, 8)
        except ValueError:
            raise _wrong(word, f"invalid value for {key}: {value}") from None
    else:
        return False
    return True


def _recursive(options: dict[str, Any], word: str, value: str) -> None:
    if value == "disabled":
        options["NonRecursive"] = True
    elif value == "writable":
        options["ReadOnlyNonRecursive"] = True
    elif value == "readonly":
        options["ReadOnlyForceRecursive"] = True
    elif value != "enabled":
        raise _wrong(word, f'invalid value for bind-recursive: {value} (must be "enabled", "disabled", "writable", or "readonly")')


def _truth(word: str, key: str, value: str) -> bool:
    if value.lower() not in TRUTHS:
        raise _wrong(word, f"invalid value for {key}: {value}")
    return TRUTHS[value.lower()]


def _size(word: str, value: str) -> int:
    from atoll.errors import InvalidInput
    from atoll.units import parse_bytes

    try:
        return parse_bytes(value)
    except InvalidInput as error:
        raise _wrong(word, str(error)) from error


def _wrong(word: str, why: str) -> UsageError:
    return UsageError(f'invalid argument "{word}" for "--mount" flag: {why}')
