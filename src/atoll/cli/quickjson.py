"""JSON by the C scanner and encoder that lie beneath the standard `json`, without `json` itself.

Importing `json` brings `re` and `enum`, which its C half never uses: a third of the time that `atoll ps` takes. Where an interpreter has no
such half, or another one, `json` does the work.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BLANK = " \t\n\r"
CONSTANTS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class _Rules:
    """What the scanner asks of json.JSONDecoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = CONSTANTS.__getitem__


def _refuse(value: object) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


try:
    from _json import encode_basestring, encode_basestring_ascii, make_encoder, make_scanner

    _scan = make_scanner(_Rules)  # type: ignore[arg-type]  # it reads attributes, whoever has them
    _spaced = make_encoder(None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True)
    _dense = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, True)
except (ImportError, TypeError):
    import json
    from json.encoder import encode_basestring

    def loads(data: bytes | str) -> Any:
        return json.loads(data)

    def dumps(value: Any) -> str:
        return json.dumps(value)

    def compact(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))
else:

    def loads(data: bytes | str) -> Any:
        """Raises ValueError where DATA is not one JSON value."""
        text = data.decode() if isinstance(data, bytes) else data
        try:
            value, end = _scan(text, len(text) - len(text.lstrip(BLANK)))
        except StopIteration as stop:
            raise ValueError(f"not JSON: expecting a value at character {stop.value}") from None
        if text[end:].strip(BLANK):
            raise ValueError(f"not JSON: extra data at character {end}")
        return value

    def dumps(value: Any) -> str:
        """ASCII, on one line. Raises TypeError for what JSON does not have."""
        return "".join(_spaced(value, 0))

    def compact(value: Any) -> str:
        """The same without blanks."""
        return "".join(_dense(value, 0))


def indented(value: Any, depth: int = 0) -> str:
    """As `json.dumps(value, indent=4, ensure_ascii=False)` has it."""
    if isinstance(value, str):
        return str(encode_basestring(value))
    if not value or not isinstance(value, (dict, list)):
        return dumps(value)
    inner = "    " * (depth + 1)
    if isinstance(value, dict):
        lines = [f"{inner}{encode_basestring(key)}: {indented(item, depth + 1)}" for key, item in value.items()]
    else:
        lines = [f"{inner}{indented(item, depth + 1)}" for item in value]
    brackets = "{}" if isinstance(value, dict) else "[]"
    return f"{brackets[0]}\n" + ",\n".join(lines) + f"\n{'    ' * depth}{brackets[1]}"
