"""Words and variables of instructions: quotes, escapes, and `$name` in all the forms the reference lists.

A word is read once, left to right; an expanded value is never read again, so nothing recurses but the words inside braces, whose depth is
bounded.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping

from atoll.errors import InvalidInput

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*|[0-9]|[@*#?$!-]")
DEPTH_MAX = 20  # braces within braces
OPERATORS = (":-", ":+", ":?", "##", "%%", "//", "-", "+", "?", "#", "%", "/")


class Expander:
    """Expands words with VALUES; `used` collects the names that were asked for."""

    def __init__(self, values: Mapping[str, str], escape: str = "\\") -> None:
        self._values = values
        self.escape = escape
        self.used: set[str] = set()

    def word(self, text: str) -> str:
        """TEXT with quotes removed and variables replaced. Raises InvalidInput."""
        return "".join(self._pieces(text, 0)[0])

    def split(self, text: str) -> list[str]:
        """Words divided by white space outside quotes, each expanded; an unquoted expansion is not divided again."""
        return [self.word(word) for word in split_words(text, self.escape)]

    def heredoc(self, text: str) -> str:
        """Variables replaced, quotes kept."""
        out, position = [], 0
        while position < len(text):
            char = text[position]
            if char == self.escape and position + 1 < len(text) and text[position + 1] in "$" + self.escape:
                out.append(text[position + 1])
                position += 2
            elif char == "$":
                value, position = self._variable(text, position, 0)
                out.append(value)
            else:
                out.append(char)
                position += 1
        return "".join(out)

    def _pieces(self, text: str, depth: int) -> tuple[list[str], int]:
        out: list[str] = []
        position = 0
        while position < len(text):
            char = text[position]
            if char == "'":
                end = text.find("'", position + 1)
                if end < 0:
                    raise InvalidInput("unexpected end of statement while looking for matching single-quote")
                out.append(text[position + 1 : end])
                position = end + 1
            elif char == '"':
                piece, position = self._double(text, position + 1, depth)
                out.append(piece)
            elif char == self.escape:
                if position + 1 < len(text):
                    out.append(text[position + 1])
                position += 2
            elif char == "$":
                piece, position = self._variable(text, position, depth)
                out.append(piece)
            else:
                out.append(char)
                position += 1
        return out, position

    def _double(self, text: str, position: int, depth: int) -> tuple[str, int]:
        out: list[str] = []
        while position < len(text):
            char = text[position]
            if char == '"':
                return "".join(out), position + 1
            if char == self.escape and position + 1 < len(text):
                if text[position + 1] not in '"$' + self.escape:
                    out.append(char)
                out.append(text[position + 1])
                position += 2
            elif char == "$":
                piece, position = self._variable(text, position, depth)
                out.append(piece)
            else:
                out.append(char)
                position += 1
        raise InvalidInput("unexpected end of statement while looking for matching double-quote")

    def _variable(self, text: str, position: int, depth: int) -> tuple[str, int]:
        if text.startswith("${", position):
            return self._braces(text, position + 2, depth)
        match = NAME.match(text, position + 1)
        if not match:
            return "$", position + 1
        return self._value(match[0]) or "", match.end()

    def _value(self, name: str) -> str | None:
        self.used.add(name)
        return self._values.get(name)

    def _braces(self, text: str, position: int, depth: int) -> tuple[str, int]:
        if depth >= DEPTH_MAX:
            raise InvalidInput(f"variables nest deeper than {DEPTH_MAX}")
        match = NAME.match(text, position)
        if not match:
            raise InvalidInput("syntax error: bad substitution")
        name, position = match[0], match.end()
        if text.startswith("}", position):
            return self._value(name) or "", position + 1
        operator = next((one for one in OPERATORS if text.startswith(one, position)), None)
        if operator is None:
            raise InvalidInput(f"unsupported modifier ({text[position : position + 1]}) in substitution")
        body, end = self._until_brace(text, position + len(operator))
        return self._modified(name, operator, body, depth + 1), end

    def _until_brace(self, text: str, position: int) -> tuple[str, int]:
        start, nested = position, 0
        while position < len(text):
            char = text[position]
            if char == self.escape:
                position += 1
            elif text.startswith("${", position):
                nested += 1
                position += 1
            elif char == "}":
                if nested == 0:
                    return text[start:position], position + 1
                nested -= 1
            position += 1
        raise InvalidInput("syntax error: missing '}'")

    def _modified(self, name: str, operator: str, body: str, depth: int) -> str:
        value = self._value(name)
        if operator in ("/", "//"):
            pattern, _, replacement = body.partition("/")
            return _replace(value or "", self._inner(pattern, depth), self._inner(replacement, depth), every=operator == "//")
        word = self._inner(body, depth)
        if operator in ("#", "##", "%", "%%"):
            return _trim(value or "", operator, word)
        present = bool(value) if operator.startswith(":") else value is not None
        if operator.endswith("-"):
            return value or "" if present else word
        if operator.endswith("+"):
            return word if present else ""
        if not present:
            raise InvalidInput(f"{name}: {word or 'not allowed to be unset'}")
        return value or ""

    def _inner(self, text: str, depth: int) -> str:
        return "".join(self._pieces(text, depth)[0])


def split_words(text: str, escape: str = "\\") -> list[str]:
    """Words divided by white space outside quotes; quotes and escapes stay in them."""
    words: list[str] = []
    current: list[str] = []
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        if char == escape and quote != "'" and position + 1 < len(text):
            current.append(text[position : position + 2])
            position += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char.isspace():
            if current:
                words.append("".join(current))
                current = []
            position += 1
            continue
        current.append(char)
        position += 1
    if current:
        words.append("".join(current))
    return words


def _regex(pattern: str) -> str:
    """The pattern as a regular expression that need not reach the end: fnmatch's, without its frame `(?s:...)` and end anchor."""
    whole = fnmatch.translate(pattern)
    return whole[len("(?s:") : whole.rindex(")")]


def _trim(value: str, operator: str, pattern: str) -> str:
    """`#` and `%` take the shortest match off the front or the back, doubled ones the longest."""
    matches = re.compile(fnmatch.translate(pattern)).match
    lengths = range(len(value) + 1) if len(operator) == 1 else range(len(value), -1, -1)
    for length in lengths:
        part = value[:length] if operator[0] == "#" else value[len(value) - length :]
        if matches(part):
            return value[length:] if operator[0] == "#" else value[: len(value) - length]
    return value


def _replace(value: str, pattern: str, replacement: str, *, every: bool) -> str:
    if not pattern:
        return value
    return re.sub(_regex(pattern), lambda _: replacement, value, count=0 if every else 1)
