"""Go templates for `--format`: the part of text/template that docker's users write.

Text and `{{actions}}`: fields and chains (.A.B), variables, pipelines, `range` (with else), `if`/`else if`/`else`, `with`, `end`,
comments, trim markers, literals, and Docker's functions (json, join, split, lower, upper, title, pad, truncate, println, table) beside
Go's own (index, len, printf, print, eq, ne, lt, le, gt, ge, and, or, not, slice). A template is parsed once to a tree of closures, then
applied to each value. Source: pkg.go.dev/text/template and docker/cli `templates`.
"""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Scope = dict[str, Any]
    Node = Callable[[Any, Scope], str]
    Value = Callable[[Any, Scope], Any]

TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<field>(?:\$\w*|\.)?(?:\.?\w+)(?:\.\w+)*|\$\w*|\.)|(?P<mark>[()|,]|:=|=))""",
)
FREE = frozenset({"Annotations", "Attributes", "Labels", "Networks", "Options", "Ports", "Sysctls", "Volumes"})
"""Fields that are maps of the user's own keys: one that is missing has no value, where a missing field is a mistake."""
ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)


class TemplateError(Exception):
    """The template is wrong, or does not fit the value; the message is Docker's."""


class Template:
    """One parsed template. `render(value)` gives its text for one value."""

    def __init__(self, text: str) -> None:
        self._parts = list(_split(text))
        self._position = 0
        self._body, end = self._block(frozenset())
        assert end == ""

    def render(self, value: Any) -> str:
        return self._body(value, {"$": value})

    def _block(self, ends: frozenset[str]) -> tuple[Node, str]:
        nodes: list[Node] = []
        while self._position < len(self._parts):
            is_action, text = self._parts[self._position]
            self._position += 1
            if not is_action:
                nodes.append(lambda _dot, _scope, text=text: text)  # type: ignore[misc]
                continue
            word = text.split(None, 1)[0] if text.split() else ""
            if text.startswith("/*"):
                continue
            if word in ("end", "else"):
                if word not in ends:
                    raise TemplateError(f"template parsing error: unexpected {{{{{word}}}}}")
                return _sequence(nodes), text
            nodes.append(self._action(word, text))
        if ends:
            raise TemplateError("template parsing error: unexpected EOF")
        return _sequence(nodes), ""

    def _action(self, word: str, text: str) -> Node:
        if word in ("if", "with", "range"):
            return self._branch(word, text[len(word) :].strip())
        if word in ("define", "template", "block", "break", "continue"):
            raise TemplateError(f"template parsing error: {{{{{word}}}}} is not supported")
        assigned = re.match(r"(\$\w+)\s*:?=\s*(.*)$", text, re.DOTALL)
        if assigned:
            name, value = assigned[1], _pipeline(assigned[2])

            def assign(dot: Any, scope: Scope) -> str:
                scope[name] = value(dot, scope)
                return ""

            return assign
        value = _pipeline(text)
        return lambda dot, scope: _text(value(dot, scope))

    def _branch(self, word: str, head: str) -> Node:
        names: list[str] = []
        declared = re.match(r"((?:\$\w+\s*,\s*)?\$\w+)\s*:=\s*(.*)$", head, re.DOTALL)
        if declared:
            names = [name.strip() for name in declared[1].split(",")]
            head = declared[2]
        value = _pipeline(head)
        body, end = self._block(frozenset(("else", "end")))
        otherwise: Node = _sequence([])
        if end.startswith("else"):
            rest = end[4:].strip()
            if rest.startswith("if "):
                otherwise = self._branch("if", rest[2:].strip())
            else:
                otherwise, _ = self._block(frozenset(("end",)))
        if word == "range":
            return _range(value, names, body, otherwise)

        def choose(dot: Any, scope: Scope) -> str:
            found = value(dot, scope)
            if not _true(found):
                return otherwise(dot, scope)
            inner = {**scope, **dict.fromkeys(names, found)}
            return body(found if word == "with" else dot, inner)

        return choose


def _range(value: Value, names: list[str], body: Node, otherwise: Node) -> Node:
    def loop(dot: Any, scope: Scope) -> str:
        found = value(dot, scope)
        pairs = sorted(found.items()) if isinstance(found, dict) else list(enumerate(found or []))
        if not pairs:
            return otherwise(dot, scope)
        out = []
        for key, item in pairs:
            inner = dict(scope)
            if len(names) == 2:
                inner[names[0]], inner[names[1]] = key, item
            elif names:
                inner[names[0]] = item
            out.append(body(item, inner))
        return "".join(out)

    return loop


def _sequence(nodes: list[Node]) -> Node:
    return lambda dot, scope: "".join([node(dot, scope) for node in nodes])


def _split(text: str) -> Iterator[tuple[bool, str]]:
    position, trim = 0, False
    for match in ACTION.finditer(text):
        before = text[position : match.start()]
        before = before.lstrip() if trim else before
        before = before.rstrip() if match[1] else before
        if before:
            yield False, before
        yield True, match[2].strip()
        position, trim = match.end(), bool(match[3])
    rest = text[position:].lstrip() if trim else text[position:]
    if "{{" in rest:
        raise TemplateError("template parsing error: unclosed action")
    if rest:
        yield False, rest


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if not match or match.end() == position:
            raise TemplateError(f"template parsing error: unexpected {text[position:]!r} in {{{{{text}}}}}")
        tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
        position = match.end()
    return tokens


def _pipeline(text: str) -> Value:
    tokens = _tokens(text)
    value, rest = _pipe(tokens)
    if rest:
        raise TemplateError(f"template parsing error: unexpected {rest[0][1]!r} in {{{{{text}}}}}")
    return value


def _pipe(tokens: list[tuple[str, str]]) -> tuple[Value, list[tuple[str, str]]]:
    value, tokens = _command(tokens, None)
    while tokens and tokens[0] == ("mark", "|"):
        value, tokens = _command(tokens[1:], value)
    return value, tokens


def _command(tokens: list[tuple[str, str]], piped: Value | None) -> tuple[Value, list[tuple[str, str]]]:
    operands: list[Value] = []
    name = ""
    while tokens and tokens[0] not in (("mark", "|"), ("mark", ")")):
        kind, word = tokens[0]
        if kind == "mark":
            if word != "(":
                raise TemplateError(f"template parsing error: unexpected {word!r}")
            inner, tokens = _pipe(tokens[1:])
            if not tokens or tokens[0] != ("mark", ")"):
                raise TemplateError("template parsing error: unclosed left paren")
            tokens = tokens[1:]
            if tokens and tokens[0][0] == "field" and tokens[0][1].startswith(".") and tokens[0][1] != ".":
                inner, tokens = _chain(inner, tokens[0][1][1:].split(".")), tokens[1:]
            operands.append(inner)
            continue
        tokens = tokens[1:]
        if kind == "field" and word[0] not in ".$" and word not in ("true", "false", "nil"):
            if operands or name:
                raise TemplateError(f'template parsing error: function "{word}" stands where a value must')
            if word not in FUNCTIONS:
                raise TemplateError(f'template parsing error: template: :1: function "{word}" not defined')
            name = word
            continue
        operands.append(_operand(kind, word))
    if piped is not None:
        operands.append(piped)
    if name:
        return _call(name, operands), tokens
    if not operands:
        raise TemplateError("template parsing error: missing value for command")
    return (operands[0] if len(operands) == 1 else _method(operands[0], operands[1:])), tokens


def _call(name: str, operands: list[Value]) -> Value:
    function = FUNCTIONS[name]

    def call(dot: Any, scope: Scope) -> Any:
        values = [operand(dot, scope) for operand in operands]
        try:
            return function(*values)
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise TemplateError(f'template: :1: executing "" at <{name}>: error calling {name}: {error}') from error

    return call


def _method(target: Value, operands: list[Value]) -> Value:
    """`.Label "colour"`: a field that takes arguments."""

    def call(dot: Any, scope: Scope) -> Any:
        method = target(dot, scope)
        if not callable(method):
            raise TemplateError('template: :1: executing "": a value that is no method has arguments')
        return method(*[operand(dot, scope) for operand in operands])

    return call


def _operand(kind: str, word: str) -> Value:
    if kind == "string":
        literal: Any = word[1:-1] if word[0] == "`" else json.loads(word)
    elif kind == "number":
        literal = float(word) if "." in word else int(word)
    elif word in ("true", "false", "nil"):
        literal = {"true": True, "false": False, "nil": None}[word]
    else:
        head, *fields = word.split(".")
        fields = [field for field in fields if field]
        if head.startswith("$"):
            return _chain(lambda _dot, scope: _variable(scope, head), fields)
        return _chain(lambda dot, _scope: dot, fields)
    return lambda _dot, _scope: literal


def _variable(scope: Scope, name: str) -> Any:
    if name not in scope:
        raise TemplateError(f'template parsing error: undefined variable "{name}"')
    return scope[name]


def _chain(base: Value, fields: list[str]) -> Value:
    if not fields:
        return base

    def walk(dot: Any, scope: Scope) -> Any:
        value, free = base(dot, scope), False
        for field in fields:
            if value is None:
                return None
            if not isinstance(value, dict) or field not in value:
                if free:
                    return None
                raise TemplateError(
                    f'template parsing error: template: :1: executing "" at <.{".".join(fields)}>: map has no entry for key "{field}"'
                )
            value, free = value[field], field in FREE
        return value

    return walk


def _true(value: Any) -> bool:
    return bool(value)


def _text(value: Any) -> str:
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(_text(item) for item in value) + "]"
    return str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list | str):
            if not isinstance(key, int) or not -1 < key < len(value):
                raise TemplateError(f"error calling index: index out of range: {_text(key)}")
            value = value[key]
        else:
            raise TemplateError("error calling index: index of untyped nil")
    return value


def _printf(form: str, *values: Any) -> str:
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        verb = match[2]
        if verb == "%":
            return "%"
        value = rest.pop(0) if rest else None
        if verb == "q":
            return json.dumps(_text(value))
        if verb in "sv":
            return f"%{match[1]}s" % _text(value)
        return f"%{match[1]}{verb}" % value

    return re.sub(r"%([-+ 0-9.]*)([%a-zA-Z])", one, form)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": lambda *values: next((value for value in values if not _true(value)), values[-1]),
    "eq": lambda first, *others: any(first == other for other in others),
    "ge": lambda left, right: left >= right,
    "gt": lambda left, right: left > right,
    "index": _index,
    "join": lambda values, separator: separator.join(_text(value) for value in values or []),
    "json": _json,
    "le": lambda left, right: left <= right,
    "len": lambda value: len(value or []),
    "lower": lambda text: _text(text).lower(),
    "lt": lambda left, right: left < right,
    "ne": lambda left, right: left != right,
    "not": lambda value: not _true(value),
    "or": lambda *values: next((value for value in values if _true(value)), values[-1]),
    "pad": _pad,
    "print": lambda *values: "".join(_text(value) for value in values),
    "printf": _printf,
    "println": lambda *values: " ".join(_text(value) for value in values) + "\n",
    "slice": lambda value, start=0, end=None: value[start:end],
    "split": lambda text, separator: _text(text).split(separator),
    "title": lambda text: _text(text)[:1].upper() + _text(text)[1:],
    "truncate": lambda text, length: _text(text)[:length],
    "upper": lambda text: _text(text).upper(),
}
