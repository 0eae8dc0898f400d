"""`.dockerignore`: which paths of a context stay behind.

One pattern a line; `#` comments; `!` takes back; `*` and `?` stay within a path segment, `**` crosses them; a pattern that matches a
directory matches all below it; the last pattern that matches decides (Docker reference, ".dockerignore file"). Patterns are run as small
automata over sets of states, so that no pattern, however hostile, takes more than its length times the path's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from atoll.errors import InvalidInput

STAR, GLOBSTAR, DIRECTORIES, ONE = "*", "**", "**/", "?"
WILD = frozenset("*?[\\")
Token = str | frozenset[str] | tuple[bool, frozenset[str]]


class Pattern:
    """One line. `matches(path)` looks at that path alone, not at its parents."""

    __slots__ = ("_literal", "_tokens", "negated", "text")

    def __init__(self, text: str, *, negated: bool = False) -> None:
        self.text = text
        self.negated = negated
        self._literal = not WILD.intersection(text)
        self._tokens = [] if self._literal else _tokens(text)

    def matches(self, path: str) -> bool:
        if self._literal:
            return path == self.text
        tokens = self._tokens
        end = len(tokens)
        states = _close({0}, tokens)
        for char in path:
            following: set[int] = set()
            for state in states:
                # An odd state is inside a run of directories that token state//2 began.
                index, inside = state >> 1, state & 1
                if inside:
                    following.add(state)
                    if char == "/":
                        following.add((index + 1) << 1)
                elif index < end:
                    _step(tokens[index], index, char, following)
            states = _close(following, tokens)
            if not states:
                return False
        return end << 1 in states


def _step(token: Token, index: int, char: str, following: set[int]) -> None:
    if token == STAR:
        if char != "/":
            following.add(index << 1)
    elif token == GLOBSTAR:
        following.add(index << 1)
    elif token == DIRECTORIES:
        following.add(index << 1 | 1)
        if char == "/":
            following.add((index + 1) << 1)
    elif token == ONE:
        if char != "/":
            following.add((index + 1) << 1)
    elif isinstance(token, tuple):
        negated, members = token
        if char != "/" and (char in members) != negated:
            following.add((index + 1) << 1)
    elif char in token:
        following.add((index + 1) << 1)


def _close(states: set[int], tokens: list[Token]) -> set[int]:
    """Add what is reached without reading: a star may stand for nothing."""
    queue = list(states)
    while queue:
        state = queue.pop()
        index = state >> 1
        if not state & 1 and index < len(tokens) and tokens[index] in (STAR, GLOBSTAR, DIRECTORIES):
            skipped = (index + 1) << 1
            if skipped not in states:
                states.add(skipped)
                queue.append(skipped)
    return states


def _tokens(text: str) -> list[Token]:
    found: list[Token] = []
    position = 0
    while position < len(text):
        char = text[position]
        if text.startswith("**", position):
            while text.startswith("*", position):
                position += 1
            if text.startswith("/", position):
                position += 1
                token = DIRECTORIES
            else:
                token = GLOBSTAR
            if not found or found[-1] != token:
                found.append(token)
            continue
        position += 1
        if char == "*":
            found.append(STAR)
        elif char == "?":
            found.append(ONE)
        elif char == "[":
            token_class, position = _class(text, position)
            found.append(token_class)
        elif char == "\\" and position < len(text):
            found.append(frozenset(text[position]))
            position += 1
        else:
            found.append(frozenset(char))
    return found


def _class(text: str, position: int) -> tuple[Token, int]:
    end = text.find("]", position + 1)
    if end < 0:
        raise InvalidInput(f".dockerignore: syntax error in pattern '{text}': the bracket is not closed")
    body = text[position:end]
    negated = body[:1] == "^"
    body = body[1:] if negated else body
    members: set[str] = set()
    index = 0
    while index < len(body):
        if body[index + 1 : index + 2] == "-" and index + 2 < len(body):
            first, last = ord(body[index]), ord(body[index + 2])
            if last - first > 0x10FF:
                raise InvalidInput(f".dockerignore: the range in pattern '{text}' is too wide")
            members.update(chr(code) for code in range(first, last + 1))
            index += 3
        else:
            members.add(body[index])
            index += 1
    return (negated, frozenset(members)), end + 1


class Ignore:
    """All patterns of one file, in order."""

    def __init__(self, patterns: Iterable[Pattern] = ()) -> None:
        self.patterns = tuple(patterns)
        self.has_exceptions = any(pattern.negated for pattern in self.patterns)

    @classmethod
    def parse(cls, text: str) -> Ignore:
        """Raises InvalidInput where a pattern cannot be read."""
        patterns = []
        for line in text.removeprefix("\ufeff").splitlines():
            if line.startswith("#"):
                continue
            word = line.strip()
            negated = word.startswith("!")
            word = word.removeprefix("!").strip()
            if not word:
                if negated:
                    raise InvalidInput('.dockerignore: illegal exclusion pattern: "!"')
                continue
            cleaned = posixpath.normpath(word).lstrip("/")
            if cleaned and cleaned != ".":
                patterns.append(Pattern(cleaned, negated=negated))
        return cls(patterns)

    def excludes(self, path: str) -> bool:
        """True where PATH (relative, with slashes) stays behind, for its own sake or a parent's."""
        parts = path.split("/")
        prefixes = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        excluded = False
        for pattern in self.patterns:
            # Only a pattern that would change the verdict needs to be run.
            if pattern.negated == excluded and any(pattern.matches(prefix) for prefix in prefixes):
                excluded = not pattern.negated
        return excluded
