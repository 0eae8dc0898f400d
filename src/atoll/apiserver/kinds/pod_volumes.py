"""Rules of a pod's volumes: one source each, and what each source needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.pod_containers import validate_field_reference, validate_relative_path, validate_resource_reference
from atoll.apiserver.kinds.resources import validate_not_negative

HOST_PATH_TYPES = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
_MODE_WORDS = "must be a number between 0 and 0777 (octal), both inclusive"
_DOWNWARD_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_TOKEN_MIN_S, _TOKEN_MAX_S = 600, 1 << 32

Object = Mapping[str, Any]


def validate_volumes(volumes: Sequence[Object], path: str, causes: Causes) -> None:
    taken: set[str] = set()
    for index, volume in enumerate(volumes):
        at = f"{path}[{index}]"
        name = volume.get("name") or ""
        if not name:
            causes.required(f"{at}.name")
        else:
            causes.each(f"{at}.name", name, names.label(name))
            if name in taken:
                causes.duplicate(f"{at}.name", name)
            taken.add(name)
        sources = [field for field in volume if field != "name"]
        if not sources:
            causes.required(at, "must specify a volume type")
        for extra in sources[1:]:
            causes.forbidden(f"{at}.{extra}", "may not specify more than 1 volume type")
        for field in sources[:1]:
            check = _CHECKS.get(field)
            if check:
                check(volume[field], f"{at}.{field}", causes)


def validate_host_path(source: Object, path: str, causes: Causes) -> None:
    if not source.get("path"):
        causes.required(f"{path}.path")
    elif ".." in source["path"].split("/"):
        causes.invalid(f"{path}.path", source["path"], "must not contain '..'")
    if source.get("type", "") not in HOST_PATH_TYPES:
        causes.unsupported(f"{path}.type", source["type"], HOST_PATH_TYPES)


def _empty_dir(source: Object, path: str, causes: Causes) -> None:
    if "sizeLimit" in source:
        validate_not_negative(source["sizeLimit"], f"{path}.sizeLimit", causes)


def _claim(source: Object, path: str, causes: Causes) -> None:
    if not source.get("claimName"):
        causes.required(f"{path}.claimName")


def _config_map(source: Object, path: str, causes: Causes) -> None:
    if not source.get("name"):
        causes.required(f"{path}.name")
    _files(source, path, causes)


def _secret(source: Object, path: str, causes: Causes) -> None:
    if not source.get("secretName"):
        causes.required(f"{path}.secretName")
    _files(source, path, causes)


def _files(source: Object, path: str, causes: Causes) -> None:
    _mode(source.get("defaultMode"), f"{path}.defaultMode", causes)
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{index}]"
        if not item.get("key"):
            causes.required(f"{at}.key")
        _file(item, at, causes)


def _file(item: Object, path: str, causes: Causes) -> None:
    if not item.get("path"):
        causes.required(f"{path}.path")
    else:
        validate_relative_path(item["path"], f"{path}.path", causes)
        if item["path"].startswith(".."):
            causes.invalid(f"{path}.path", item["path"], "must not start with '..'")
    _mode(item.get("mode"), f"{path}.mode", causes)


def _mode(mode: int | None, path: str, causes: Causes) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        causes.invalid(path, mode, _MODE_WORDS)


def _downward(source: Object, path: str, causes: Causes) -> None:
    _mode(source.get("defaultMode"), f"{path}.defaultMode", causes)
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{index}]"
        _file(item, at, causes)
        if "fieldRef" in item and "resourceFieldRef" in item:
            causes.invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
        elif "fieldRef" in item:
            validate_field_reference(item["fieldRef"], f"{at}.fieldRef", _DOWNWARD_FIELDS, causes)
        elif "resourceFieldRef" in item:
            if not item["resourceFieldRef"].get("containerName"):
                causes.required(f"{at}.resourceFieldRef.containerName")
            validate_resource_reference(item["resourceFieldRef"], f"{at}.resourceFieldRef", causes)
        else:
            causes.required(at, "one of fieldRef and resourceFieldRef is required")


def _token(source: Object, path: str, causes: Causes) -> None:
    seconds = source.get("expirationSeconds", _TOKEN_MIN_S)
    if seconds < _TOKEN_MIN_S:
        causes.invalid(f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
    elif seconds > _TOKEN_MAX_S:
        causes.invalid(f"{path}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds")
    if not source.get("path"):
        causes.required(f"{path}.path")
    else:
        validate_relative_path(source["path"], f"{path}.path", causes)


def _projected(source: Object, path: str, causes: Causes) -> None:
    _mode(source.get("defaultMode"), f"{path}.defaultMode", causes)
    checks = {"secret": _config_map, "configMap": _config_map, "downwardAPI": _downward, "serviceAccountToken": _token}
    for index, part in enumerate(source.get("sources") or ()):
        at = f"{path}.sources[{index}]"
        for extra in list(part)[1:]:
            causes.forbidden(f"{at}.{extra}", "may not specify more than 1 volume type per source")
        for field in list(part)[:1]:
            if field in checks:
                checks[field](part[field], f"{at}.{field}", causes)


_CHECKS = {
    "configMap": _config_map,
    "downwardAPI": _downward,
    "emptyDir": _empty_dir,
    "hostPath": validate_host_path,
    "persistentVolumeClaim": _claim,
    "projected": _projected,
    "secret": _secret,
}
