"""Cells of custom resources: the simple JSONPath that printer columns may use, evaluated over the object.

Fields (.spec.size, ['a.b']), positions ([0], [-1]), ranges ([-1:], [0:2]), all items ([*]) and filters on one field
([?(@.type=="Ready")]); the first result is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import orjson

from atoll.apiserver.machinery.kind import Column
from atoll.apiserver.machinery.table_format import Age, name_of
from atoll.errors import InvalidInput

_STEP = re.compile(
    r"""\.(?P<field>(?:[A-Za-z0-9_$-]|\\.)+)"""
    r"""|\[['"](?P<quoted>[^'"]+)['"]\]"""
    r"""|\[(?P<index>-?[0-9]{1,9})\]"""
    r"""|\[(?P<low>-?[0-9]{0,9}):(?P<high>-?[0-9]{0,9})\]"""
    r"""|(?P<all>\[\*\]|\.\*)"""
    r"""|\[\?\(@\.(?P<key>[A-Za-z0-9_.-]+)\s*==\s*['"]?(?P<value>[^'")]*)['"]?\)\]"""
)


def custom_cells(columns: Iterable[Column], obj: Mapping[str, Any], age: Age) -> list[Any]:
    return [name_of(obj), *(_cell(column, obj, age) for column in columns)]


def _cell(column: Column, obj: Mapping[str, Any], age: Age) -> Any:
    found = evaluate(column.path, obj)
    if not found or found[0] is None:
        return None
    value = found[0]
    match column.type:
        case "integer" | "number":
            return value if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case "date":
            return age.since(value) if isinstance(value, str) else None
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def evaluate(path: str, obj: Any) -> list[Any]:
    """All values at the path; what is not there gives none. Raises InvalidInput for a path beyond the subset."""
    values = [obj]
    for step in _parsed(path):
        values = [found for value in values for found in _take(step, value)]
    return values


@lru_cache(maxsize=1024)
def _parsed(path: str) -> tuple[dict[str, str], ...]:
    text, at = path.strip().removeprefix("{").removesuffix("}").removeprefix("$"), 0
    steps = []
    while at < len(text):
        match = _STEP.match(text, at)
        if not match:
            raise InvalidInput(f'JSONPath "{path}" is not supported from "{text[at:]}" on')
        steps.append({name: found for name, found in match.groupdict().items() if found is not None})
        at = match.end()
    return tuple(steps)


def _take(step: dict[str, str], value: Any) -> list[Any]:
    field = step.get("field") or step.get("quoted")
    if field is not None:
        field = field.replace("\\.", ".")
        return [value[field]] if isinstance(value, dict) and field in value else []
    if "all" in step:
        return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
    if not isinstance(value, list):
        return []
    if "index" in step:
        index = int(step["index"])
        return [value[index]] if -len(value) <= index < len(value) else []
    if "low" in step:
        return value[int(step["low"]) if step["low"] else None : int(step["high"]) if step["high"] else None]
    wanted = step["value"]
    return [item for item in value if any(_text(found) == wanted for found in evaluate(f".{step['key']}", item))]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
