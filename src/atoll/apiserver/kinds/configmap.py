"""Config maps: keys that can be file names, a megabyte at most, and `immutable` for good."""

from __future__ import annotations

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import ReadOnly, Rules

SIZE_MAX = 1024 * 1024


class ConfigMapRules(Rules):
    def check(self, obj: ReadOnly, causes: Causes) -> None:
        data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
        size = 0
        for key, value in data.items():
            causes.each(f"data[{key}]", key, names.config_key(key))
            if key in binary:
                causes.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
            size += len(value.encode(errors="surrogatepass"))
        for key, value in binary.items():
            causes.each(f"binaryData[{key}]", key, names.config_key(key))
            size += len(value) * 3 // 4
        if size > SIZE_MAX:
            causes.too_long("", SIZE_MAX)

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        check_immutable(new, old, causes, ("data", "binaryData"))


def check_immutable(new: ReadOnly, old: ReadOnly, causes: Causes, fields: tuple[str, ...]) -> None:
    """Once `immutable` is true, it stays so, and with it what the object holds."""
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        causes.forbidden("immutable", "field is immutable when `immutable` is set")
    for field in fields:
        if (new.get(field) or {}) != (old.get(field) or {}):
            causes.forbidden(field, "field is immutable when `immutable` is set")


RULES = ConfigMapRules()
