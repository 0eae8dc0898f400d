"""Secrets: `stringData` is folded into `data`; the well-known types need their keys."""

from __future__ import annotations

import base64
import binascii

import orjson

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.configmap import SIZE_MAX, check_immutable
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

_REDACTED = "<secret contents redacted>"
_ACCOUNT = "kubernetes.io/service-account.name"
_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


class SecretRules(Rules):
    def default(self, obj: Object) -> None:
        obj.setdefault("type", "Opaque")
        given = obj.pop("stringData", None)
        if given:
            data = obj.setdefault("data", {})
            data.update({key: base64.b64encode(value.encode()).decode() for key, value in given.items()})

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        data = obj.get("data") or {}
        for key in data:
            causes.each(f"data[{key}]", key, names.config_key(key))
        if sum(len(value) * 3 // 4 for value in data.values()) > SIZE_MAX:
            causes.too_long("data", SIZE_MAX)
        kind = obj.get("type")
        for key in _KEYS.get(kind or "", ()):
            if key not in data:
                causes.required(f"data[{key}]")
            elif key.startswith(".") and not _is_json(data[key]):
                causes.invalid(f"data[{key}]", _REDACTED, "invalid JSON")
        if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & set(data):
            causes.required("data[username]")
            causes.required("data[password]")
        if kind == "kubernetes.io/service-account-token":
            annotations = (obj.get("metadata") or {}).get("annotations") or {}
            if not annotations.get(_ACCOUNT):
                causes.required(f"metadata.annotations[{_ACCOUNT}]")

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        causes.immutable("type", new.get("type"), old.get("type"))
        check_immutable(new, old, causes, ("data",))

    def extra_fields(self, obj: ReadOnly) -> dict[str, str]:
        return {"type": obj.get("type") or ""}


def _is_json(encoded: str) -> bool:
    try:
        orjson.loads(base64.b64decode(encoded))
    except (ValueError, binascii.Error):
        return False
    return True


RULES = SecretRules()
