"""Validation of built-in objects against the types compiled into `schemas.bin`.

`BuiltinSchema.validate` first runs the compiled check of the type, which touches each field once and builds no paths. Only an object that
fails it is walked again, slowly, to say where and why in the words of upstream's decoder and to build the pruned copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.machinery.kind import ListMeta, Outcome


class BuiltinSchema:
    """A handle by group, version and kind; the type behind it is read and compiled when it is first used."""

    __slots__ = ("_gvk",)

    def __init__(self, group: str, version: str, kind: str) -> None:
        self._gvk = (group, version, kind)

    def validate(self, obj: Mapping[str, Any]) -> Outcome:
        raise NotImplementedError

    def patch_meta(self, path: tuple[str, ...]) -> ListMeta:
        raise NotImplementedError
