"""Per-kind rules, found by group and kind; a kind's module is imported when the first object of the kind is written."""

from __future__ import annotations

from importlib import import_module

from atoll.apiserver.kinds.rules import Rules
from atoll.apiserver.machinery.kind import Kind

_COMMON = Rules()
_MODULES: dict[tuple[str, str], str] = {}


def rules_for(kind: Kind) -> Rules:
    """The rules of a kind; those common to all kinds where it has none of its own."""
    module = _MODULES.get((kind.group, kind.kind))
    return import_module(f"{__name__}.{module}").RULES if module else _COMMON
