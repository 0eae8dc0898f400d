"""--device, --gpus, --ulimit and the limits of block devices, as the HostConfig of a create request has them."""

from __future__ import annotations

from atoll.cli.flags import Options, UsageError
from atoll.cli.keyvalues import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RATES = (
    ("device-read-bps", "BlkioDeviceReadBps"),
    ("device-read-iops", "BlkioDeviceReadIOps"),
    ("device-write-bps", "BlkioDeviceWriteBps"),
    ("device-write-iops", "BlkioDeviceWriteIOps"),
)


def device(word: str) -> dict[str, str]:
    """`--device /dev/x[:/dev/y][:rwm]`."""
    source, _, rest = word.partition(":")
    target, _, permissions = rest.partition(":")
    if target and not target.startswith("/"):
        target, permissions = source, target
    return {"PathOnHost": source, "PathInContainer": target or source, "CgroupPermissions": permissions or "rwm"}


def requests(options: Options) -> list[dict[str, Any]]:
    """DeviceRequests: --device vendor/class=name (CDI) and --gpus."""
    named = [word for word in options["device"] if "=" in word]
    found: list[dict[str, Any]] = [{"Driver": "cdi", "DeviceIDs": named}] if named else []
    if options["gpus"]:
        found.append(gpus(options["gpus"]))
    return found


def gpus(word: str) -> dict[str, Any]:
    """`--gpus all`, `2`, `device=0`, `"device=0,1",capabilities=utility`. Raises UsageError."""
    request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [], "Options": {}}
    counted = False
    for part in fields(word):
        key, equals, value = part.partition("=")
        if not equals:
            key, value = "count", key
        if key == "count":
            if value != "all" and not value.isdigit():
                raise UsageError(f'invalid argument "{word}" for "--gpus" flag: invalid count ({value}): write "all" or a number')
            request["Count"], counted = -1 if value == "all" else int(value), True
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "driver":
            request["Driver"] = value
        elif key == "capabilities":
            request["Capabilities"] = [sorted({*value.split(","), "gpu"})]
        elif key == "options":
            request["Options"] = dict(one.partition("=")[::2] for one in value.split(","))
        else:
            raise UsageError(f"invalid argument \"{word}\" for \"--gpus\" flag: unexpected key '{key}' in '{part}'")
    if not counted and request["DeviceIDs"] is None:
        request["Count"] = 1
    request["Capabilities"] = request["Capabilities"] or [["gpu"]]
    return request


def ulimit(word: str) -> dict[str, Any]:
    name, _, limits = word.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        low = int(soft)
        return {"Name": name, "Soft": low, "Hard": int(hard) if hard else low}
    except ValueError:
        raise UsageError(f'invalid argument "{word}" for "--ulimit" flag: write name=soft[:hard]') from None


def block_limits(options: Options) -> dict[str, Any]:
    """Those given of --blkio-weight, --blkio-weight-device and the rates of devices."""
    found: dict[str, Any] = {}
    if options["blkio-weight"]:
        found["BlkioWeight"] = options["blkio-weight"]
    if options["blkio-weight-device"]:
        found["BlkioWeightDevice"] = [
            {"Path": path, "Weight": _number("blkio-weight-device", word, text)}
            for word, path, text in _pairs("blkio-weight-device", options["blkio-weight-device"])
        ]
    for flag, name in RATES:
        if options[flag]:
            pairs = _pairs(flag, options[flag])
            found[name] = [
                {"Path": path, "Rate": _rate(flag, word, text) if flag.endswith("bps") else _number(flag, word, text)}
                for word, path, text in pairs
            ]
    return found


def _pairs(flag: str, words: list[str]) -> list[tuple[str, str, str]]:
    found = []
    for word in words:
        path, colon, value = word.rpartition(":")
        if not colon or not path.startswith("/dev/"):
            raise UsageError(f'invalid argument "{word}" for "--{flag}" flag: bad format for device path: write /dev/name:value')
        found.append((word, path, value))
    return found


def _number(flag: str, word: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f'invalid argument "{word}" for "--{flag}" flag: invalid number: {text}')
    return int(text)


def _rate(flag: str, word: str, text: str) -> int:
    from atoll.errors import InvalidInput
    from atoll.units import parse_bytes

    try:
        return parse_bytes(text)
    except InvalidInput as error:
        raise UsageError(f'invalid argument "{word}" for "--{flag}" flag: {error}') from error
