"""Rewriting of CEL texts before they are compiled: what Kubernetes' environment has and the library's Python door has not.

`variables.x` becomes a name that is bound around the expression, so that a variable keeps its type and is computed only when it is reached.
`Object.spec{replicas: 3}` and `JSONPatch{op: "add"}` become map literals, for the door has no types of one's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<text>[rR]?[bB]?[rR]?(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
    |(?P<number>0x[0-9a-fA-F]+u?|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?[uU]?)
    |(?P<quoted>`[^`\n]*`)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_TYPES = ("Object", "JSONPatch")
_OPEN, _CLOSE = "([{", ")]}"


class Token(NamedTuple):
    kind: str
    text: str


def tokens(text: str) -> list[Token]:
    return [Token(match.lastgroup or "other", match[0]) for match in _TOKEN.finditer(text)]


def bind_variables(text: str, variables: Mapping[str, str]) -> str:
    """`text` with the variables it reaches bound around it, each after those it reaches itself.

    `variables` are the texts of those that come before it, in their order. Names that are none of them stay, for the compiler to refuse.
    """
    body, used = _renamed(text, variables)
    reached = set(used)
    names = list(variables)
    bodies: dict[str, str] = {}
    for name in reversed(names):
        if name in reached:
            earlier = {other: variables[other] for other in names[: names.index(name)]}
            bodies[name], more = _renamed(variables[name], earlier)
            reached |= more
    for name in reversed(names):
        if name in bodies:
            body = f"cel.bind({_bound(name)}, {bodies[name]}\n, {body}\n)"
    return body


def _bound(name: str) -> str:
    return f"variables__{name}"


def _renamed(text: str, known: Mapping[str, str]) -> tuple[str, set[str]]:
    found = tokens(text)
    plain = [index for index, token in enumerate(found) if token.kind != "space"]
    used: set[str] = set()
    for at, index in enumerate(plain):
        if found[index] != Token("name", "variables") or (at and found[plain[at - 1]].text == "."):
            continue
        rest = [found[i] for i in plain[at + 1 : at + 3]]
        if len(rest) == 2 and rest[0].text == "." and rest[1].text in known:
            used.add(rest[1].text)
            found[index] = Token("name", _bound(rest[1].text))
            found[plain[at + 1]] = found[plain[at + 2]] = Token("space", "")
    return "".join(token.text for token in found), used


def literals_to_maps(text: str) -> str:
    """`Object.spec{a: 1, ?b: c}` as `{"a": 1, ?"b": c}`; an empty one as `{}`."""
    found = tokens(text)
    out: list[str] = []
    depth: list[bool] = []  # for each open bracket, whether it is that of a typed literal
    is_key = False
    skipped_to = 0
    for index, token in enumerate(found):
        if index < skipped_to:
            continue
        end = _type_end(found, index) if token.kind == "name" and token.text in _TYPES and _starts(found, index) else 0
        if end:
            out.append("{")
            depth.append(True)
            is_key, skipped_to = True, end + 1
            continue
        if token.kind == "other" and token.text in _OPEN:
            depth.append(False)
        elif token.kind == "other" and token.text in _CLOSE:
            if depth:
                depth.pop()
            is_key = False
        if is_key and token.kind in ("name", "quoted"):
            out.append('"' + token.text.strip("`") + '"')
            is_key = False
            continue
        if token.text == "," and depth and depth[-1]:
            is_key = True
        out.append(token.text)
    return "".join(out)


def _starts(found: list[Token], index: int) -> bool:
    """Whether no dot stands before: then the name is a field's."""
    before = next((token for token in reversed(found[:index]) if token.kind != "space"), None)
    return before is None or before.text != "."


def _type_end(found: list[Token], index: int) -> int:
    """Where the brace stands that opens a literal of the type which begins at `index`; 0 when it is none."""
    wants_name = False
    for at in range(index + 1, len(found)):
        token = found[at]
        if token.kind == "space":
            continue
        if wants_name:
            if token.kind not in ("name", "quoted"):
                return 0
            wants_name = False
        elif token.text == ".":
            wants_name = True
        else:
            return at if token.text == "{" else 0
    return 0
