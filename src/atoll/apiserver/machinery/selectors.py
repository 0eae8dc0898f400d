"""Label and field selectors: their text parsed once into a value that objects are matched against.

Grammar and messages follow apimachinery's `labels` and `fields`. Parsing is one pass over a token list without backtracking, so its time
is linear in the text (bounded to `TEXT_MAX`), whatever the text is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from atoll.apiserver.machinery import statuses

TEXT_MAX = 16 * 1024
_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|<|>|[^\s=!,()<>]+)")
_KEY = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_PUNCTUATION = {"==", "!=", "=", "!", ",", "(", ")", "<", ">"}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One comma-separated part: `operator` is in, notin, exists, absent, gt or lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "absent":
                return value is None
        try:
            return value is not None and (int(value) > int(self.values[0]) if self.operator == "gt" else int(value) < int(self.values[0]))
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class FieldTerm:
    field: str
    value: str
    equal: bool


FieldReader = Callable[[Mapping[str, Any], str], str]


@dataclass(frozen=True, slots=True)
class Selector:
    """Both selectors of a request. `read(obj, field)` gives a field's value as text."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldTerm, ...] = ()
    read: FieldReader | None = None

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields)

    def matches(self, obj: Mapping[str, Any]) -> bool:
        if self.labels:
            labels = obj["metadata"].get("labels") or {}
            if not all(requirement.matches(labels) for requirement in self.labels):
                return False
        if self.fields:
            read = self.read or _nested
            return all((read(obj, term.field) == term.value) is term.equal for term in self.fields)
        return True

    @property
    def judges_content(self) -> bool:
        """Whether more of an object is looked at than its name and namespace, which are the same in all versions."""
        return bool(self.labels) or any(term.field not in ("metadata.name", "metadata.namespace") for term in self.fields)

    @property
    def name(self) -> str | None:
        """The one name the fields allow, when they do: such a list is a get."""
        return next((term.value for term in self.fields if term.equal and term.field == "metadata.name"), None)


EVERYTHING = Selector()


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """`a=b,c!=d,e in (f,g),!h,i` and so on. Raises StatusError 400."""
    if len(text) > TEXT_MAX:
        raise statuses.bad_request(f"label selector is too long: {len(text)} characters, at most {TEXT_MAX}")
    tokens = _tokens(text)
    requirements: list[Requirement] = []
    at = 0
    while at < len(tokens):
        requirement, at = _requirement(tokens, at)
        requirements.append(requirement)
        if at == len(tokens):
            break
        if tokens[at] != ",":
            raise _unparsable(f"found '{tokens[at]}', expected: ',' or 'end of string'")
        at += 1
        if at == len(tokens):
            raise _unparsable("found '', expected: identifier after ','")
    return tuple(requirements)


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    stripped = text.rstrip()
    while at < len(stripped):
        match = _TOKEN.match(stripped, at)
        if not match:  # cannot be: the classes cover every character
            raise _unparsable(f"unexpected text {stripped[at : at + 20]!r}")
        tokens.append(match[1])
        at = match.end()
    return tokens


def _requirement(tokens: list[str], at: int) -> tuple[Requirement, int]:
    negated = tokens[at] == "!"
    if negated:
        at += 1
    key = tokens[at] if at < len(tokens) else ""
    if key in _PUNCTUATION or not key:
        raise _unparsable(f"found '{key}', expected: !, identifier, or 'end of string'")
    if not _KEY.fullmatch(key):
        raise _unparsable(
            f"key: Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or '.', and "
            "must start and end with an alphanumeric character"
        )
    at += 1
    if negated:
        return Requirement(key, "absent"), at
    operator = tokens[at] if at < len(tokens) else ","
    if operator == ",":
        return Requirement(key, "exists"), at
    at += 1
    if operator in ("=", "==", "!="):
        if at < len(tokens) and tokens[at] not in _PUNCTUATION:
            value, at = _checked(tokens[at]), at + 1
        else:
            value = ""
        return Requirement(key, "notin" if operator == "!=" else "in", (value,)), at
    if operator in (">", "<"):
        value = tokens[at] if at < len(tokens) else ""
        if not value.lstrip("-").isdecimal():
            raise _unparsable(f"values[0][{key}]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer")
        return Requirement(key, "gt" if operator == ">" else "lt", (value,)), at + 1
    if operator in ("in", "notin"):
        values, at = _set(tokens, at)
        return Requirement(key, operator, values), at
    raise _unparsable(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")


def _set(tokens: list[str], at: int) -> tuple[tuple[str, ...], int]:
    if at >= len(tokens) or tokens[at] != "(":
        raise _unparsable(f"found '{tokens[at] if at < len(tokens) else ''}', expected: '('")
    at += 1
    values: list[str] = []
    wanted = True  # a value may stand here; an empty one is a value too
    while at < len(tokens):
        word = tokens[at]
        at += 1
        if word == ")":
            if wanted:
                values.append("")
            return tuple(values), at
        if word == ",":
            if wanted:
                values.append("")
            wanted = True
        elif wanted and word not in _PUNCTUATION:
            values.append(_checked(word))
            wanted = False
        else:
            raise _unparsable(f"found '{word}', expected: ',' or ')'")
    raise _unparsable("found '', expected: ',' or ')'")


def _checked(value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise _unparsable(
            f'values[0]: Invalid value: "{value}": a valid label must be an empty string or consist of alphanumeric characters, '
            "'-', '_' or '.', and must start and end with an alphanumeric character"
        )
    return value


def _unparsable(why: str) -> Exception:
    return statuses.bad_request(f"unable to parse requirement: {why}")


def parse_fields(text: str) -> tuple[FieldTerm, ...]:
    r"""`metadata.name=x,status.phase!=Running`; `\,`, `\=` and `\\` stand for themselves. Raises StatusError 400."""
    if len(text) > TEXT_MAX:
        raise statuses.bad_request(f"field selector is too long: {len(text)} characters, at most {TEXT_MAX}")
    terms = []
    for part in re.split(r"(?<!\\),", text):
        if not part.strip():
            continue
        match = re.match(r"([^=!]+)(!=|==|=)(.*)$", part.strip(), re.DOTALL)
        if not match:
            raise statuses.bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        terms.append(FieldTerm(match[1], re.sub(r"\\([,=\\])", r"\1", match[3]), match[2] != "!="))
    return tuple(terms)


def label_selector_of(selector: Mapping[str, Any]) -> tuple[Requirement, ...]:
    """The requirements of a LabelSelector object (matchLabels, matchExpressions)."""
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}
    plain = tuple(Requirement(key, "in", (value,)) for key, value in (selector.get("matchLabels") or {}).items())
    expressions = tuple(
        Requirement(e["key"], operators[e["operator"]], tuple(e.get("values") or ())) for e in selector.get("matchExpressions") or ()
    )
    return plain + expressions


def _nested(obj: Mapping[str, Any], field: str) -> str:
    value: Any = obj
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
