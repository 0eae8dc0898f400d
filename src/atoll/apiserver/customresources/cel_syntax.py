"""A checked CEL expression as a tree: the few parts of cel.expr.CheckedExpr that are needed, read from the protobuf wire format.

The library hands the tree out in that form only. Field numbers are those of the public google.api.expr / cel.expr schemas.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Sort = Literal["const", "ident", "select", "call", "list", "struct", "comprehension"]
_SORTS: dict[int, Sort] = {3: "const", 4: "ident", 5: "select", 6: "call", 7: "list", 8: "struct", 9: "comprehension"}


@dataclass(slots=True)
class Expr:
    """`name` is of an identifier, a selected field or a called function. `parts` are, for a call: target (if any) and arguments; for a
    comprehension: range, initial accumulator, condition, step, result, with `variables` (accumulator, first, second).
    """

    sort: Sort
    id: int = 0
    name: str = ""
    parts: list[Expr] = field(default_factory=list)
    has_target: bool = False
    test_only: bool = False
    constant: Any = None
    variables: tuple[str, str, str] = ("", "", "")


@dataclass(slots=True)
class Checked:
    root: Expr
    positions: dict[int, int]  # expression id → character in the source


def read_checked(serialized: bytes) -> Checked:
    """From the library's serialised form, a protobuf Any around a CheckedExpr."""
    checked = _message(_first(_message(serialized), 2))
    source = _message(_first(checked, 5))
    positions = {}
    for entry in source.get(4, ()):
        pair = _message(entry)
        positions[_number(pair, 1)] = _number(pair, 2)
    return Checked(_expr(_first(checked, 4)), positions)


Message = dict[int, list[Any]]


def _message(data: bytes) -> Message:
    """Fields by number; lengths as bytes, the rest as integers (or raw bytes of fixed fields)."""
    found: Message = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        value: Any
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            width = 8 if wire == 1 else 4
            value, at = data[at : at + width], at + width
        found.setdefault(tag >> 3, []).append(value)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _first(message: Message, number: int) -> bytes:
    found = message.get(number)
    return found[0] if found else b""


def _number(message: Message, number: int) -> int:
    found = message.get(number)
    return int(found[0]) if found else 0


def _text(message: Message, number: int) -> str:
    return _first(message, number).decode()


def _expr(data: bytes) -> Expr:
    message = _message(data)
    number = next((each for each in _SORTS if each in message), 3)
    sort, body, made = _SORTS[number], _message(_first(message, number)), Expr("const", _number(message, 2))
    made.sort = sort
    if sort == "const":
        made.constant = next(((kind, values[0]) for kind, values in body.items()), None)
    elif sort == "ident":
        made.name = _text(body, 1)
    elif sort == "select":
        made.parts, made.name, made.test_only = [_expr(_first(body, 1))], _text(body, 2), bool(_number(body, 3))
    elif sort == "call":
        made.name, made.has_target = _text(body, 2), 1 in body
        made.parts = [_expr(each) for each in (*body.get(1, ()), *body.get(3, ()))]
    elif sort == "list":
        made.parts = [_expr(each) for each in body.get(1, ())]
    elif sort == "struct":
        entries = [_message(each) for each in body.get(2, ())]
        made.parts = [_expr(each) for entry in entries for each in (*entry.get(3, ()), *entry.get(4, ()))]
    else:
        made.variables = _text(body, 3), _text(body, 1), _text(body, 8)
        made.parts = [_expr(_first(body, each)) for each in (2, 4, 5, 6, 7)]
    return made
