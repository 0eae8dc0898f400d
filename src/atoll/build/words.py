"""Words and variables of instructions: quotes, escapes, and `$name` in all the forms the reference lists.

A word is read once, left to right; an expanded value is never read again, so nothing recurses but the words inside braces, whose depth is
bounded. So is what one word may grow to: thirty lines of `ENV A=$A$A` would otherwise fill any memory. Patterns run as sets of states,
whose cost is the product of two lengths and no power of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from atoll.errors import InvalidInput

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*|[0-9]|[@*#?$!-]")
DEPTH_MAX = 20  # braces within braces
EXPANDED_MAX = 1 << 20  # characters one word may take from variables; the kernel refuses an argument of 128 KiB
PATTERN_WORK_MAX = 10_000_000  # characters of value times characters of pattern
WILD = frozenset("*?")
OPERATORS = (":-", ":+", ":?", "##", "%%", "//", "-", "+", "?", "#", "%", "/")


class Expander:
    """Expands words with VALUES; `used` collects the names that were asked for, `bare` those that had no default beside them."""

    def __init__(self, values: Mapping[str, str], escape: str = "\\") -> None:
        self._values = values
        self.escape = escape
        self.used: set[str] = set()
        self.bare: set[str] = set()
        self._taken = 0

    def word(self, text: str) -> str:
        """TEXT with quotes removed and variables replaced. Raises InvalidInput."""
        self._taken = 0
        return "".join(self._pieces(text, 0)[0])

    def split(self, text: str) -> list[str]:
        """Words divided by white space outside quotes, each expanded; an unquoted expansion is not divided again."""
        return [self.word(word) for word in split_words(text, self.escape)]

    def heredoc(self, text: str) -> str:
        """Variables replaced, quotes kept."""
        self._taken = 0
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
        self.bare.add(match[0])
        return self._value(match[0]) or "", match.end()

    def _value(self, name: str) -> str | None:
        self.used.add(name)
        value = self._values.get(name)
        self._taken += len(value or "")
        if self._taken > EXPANDED_MAX:
            raise InvalidInput(f"the variable {name} expands to more than {EXPANDED_MAX >> 20} MB")
        return value

    def _braces(self, text: str, position: int, depth: int) -> tuple[str, int]:
        if depth >= DEPTH_MAX:
            raise InvalidInput(f"variables nest deeper than {DEPTH_MAX}")
        match = NAME.match(text, position)
        if not match:
            raise InvalidInput("syntax error: bad substitution")
        name, position = match[0], match.end()
        if text.startswith("}", position):
            self.bare.add(name)
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


def _trim(value: str, operator: str, pattern: str) -> str:
    """`#` and `%` take the shortest match off the front or the back, doubled ones the longest."""
    from_front = operator[0] == "#"
    tokens = _tokens(pattern)
    lengths = _matches(tokens, value) if from_front else _matches(tokens[::-1], value[::-1])
    if not lengths:
        return value
    length = lengths[0] if len(operator) == 1 else lengths[-1]
    return value[length:] if from_front else value[: len(value) - length]


def _replace(value: str, pattern: str, replacement: str, *, every: bool) -> str:
    """The first or every longest match, from the left."""
    if not pattern:
        return value
    if not WILD & set(pattern):
        return value.replace(pattern, replacement, -1 if every else 1)
    if len(value) * len(value) * len(pattern) > PATTERN_WORK_MAX:
        raise InvalidInput(f"a value of {len(value)} characters is too long to replace {pattern[:40]!r} in")
    tokens, position = _tokens(pattern), 0
    out: list[str] = []
    while position < len(value):
        lengths = _matches(tokens, value[position:])
        if lengths and lengths[-1]:
            out.append(replacement)
            position += lengths[-1]
            if not every:
                break
        else:
            out.append(value[position])
            position += 1
    return "".join(out) + value[position:]


def _tokens(pattern: str) -> list[str]:
    r"""`*` and `?` as they are; any other character, or one behind a backslash, as itself doubled."""
    found: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if char == "\\" and position + 1 < len(pattern):
            position += 1
            char = pattern[position] * 2
        elif char not in WILD:
            char *= 2
        if not (char == "*" and found and found[-1] == "*"):
            found.append(char)
        position += 1
    return found


def _matches(tokens: list[str], value: str) -> list[int]:
    """The lengths, shortest first, of the beginnings of VALUE that the pattern matches whole. Raises InvalidInput."""
    if len(tokens) * len(value) > PATTERN_WORK_MAX:
        raise InvalidInput(f"a value of {len(value)} characters is too long for a pattern of {len(tokens)}")
    end = len(tokens)

    def close(states: set[int]) -> set[int]:
        for state in sorted(states):
            if state < end and tokens[state] == "*":
                states.add(state + 1)
        return states

    states = close({0})
    found = [0] if end in states else []
    for length, char in enumerate(value, 1):
        following = set()
        for state in states:
            wanted = tokens[state] if state < end else ""
            if wanted == "*":
                following.add(state)
            elif wanted in ("?", char * 2):
                following.add(state + 1)
        states = close(following)
        if not states:
            break
        if end in states:
            found.append(length)
    return found
