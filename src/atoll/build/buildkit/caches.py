"""--cache-from and --cache-to. The engine's own cache is always asked and always fed; others are told what becomes of them.

An inline cache is an image's own layers, which need no export: that is granted. A cache that cannot be read costs time, so a build goes on,
with a step that says so; one that cannot be written is an error, since somebody counts on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atoll.build.buildkit.board import Board
from atoll.errors import NotSupported

INLINE = "inline"
TRUE = frozenset({"1", "true"})


def check_exports(entries: Iterable[Any], board: Board) -> None:
    """Of the CacheOptionsEntry messages of a Solve. Raises NotSupported."""
    for entry in entries:
        if entry.Type == INLINE:
            continue
        text = f"cache export to {described(entry)} is not supported: the engine keeps its cache itself, and type=inline is accepted"
        if entry.Attrs.get("ignore-error", "").lower() not in TRUE:
            raise NotSupported(text)
        board.failed_task(f"exporting cache to {described(entry)}", text)


def warn_imports(entries: Iterable[Any], board: Board) -> None:
    for entry in entries:
        text = f"cache import from {described(entry)} is not supported: only the engine's own cache is used"
        board.failed_task(f"importing cache manifest from {described(entry)}", text)


def described(entry: Any) -> str:
    where = [f"{name}={entry.Attrs[name]}" for name in ("ref", "src", "dest") if name in entry.Attrs]
    return ",".join([f"type={entry.Type}", *where])
