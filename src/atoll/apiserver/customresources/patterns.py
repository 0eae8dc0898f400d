"""Patterns of schemas, matched by RE2 in time linear in the text: Python's own `re` backtracks, and a schema's author is not to be trusted.

RE2 comes inside the CEL library; it is loaded when the first pattern is used.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from atoll.errors import InvalidInput

PATTERN_MAX = 64 * 1024  # bytes; what a definition's author can want is far below


class Pattern:
    """A regular expression of RE2's syntax, which is that of Go. `matches` searches, as JSON schema has it: nothing is anchored."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def matches(self, value: str) -> bool:
        """Raises InvalidInput when the text is not a regular expression."""
        result = _expression("text.matches(pattern)").eval(data={"text": value, "pattern": self.text}).value()
        if isinstance(result, bool):
            return result
        raise _refusal(result)

    def found(self, value: str) -> list[str]:
        """Every match in the text, whole. Raises InvalidInput."""
        result = _expression("regex.extractAll(text, pattern)").eval(data={"text": value, "pattern": _without_groups(self.text)})
        plain = result.plain_value()
        if isinstance(plain, list):
            return [str(each) for each in plain]
        raise _refusal(plain)

    def problem(self) -> str:
        """Why the text is no regular expression; "" when it is one."""
        if len(self.text) > PATTERN_MAX:
            return f"longer than {PATTERN_MAX} characters"
        try:
            self.matches("")
        except InvalidInput as error:
            return str(error)
        return ""


def _refusal(told: Any) -> InvalidInput:
    return InvalidInput(str(told).removeprefix("INVALID_ARGUMENT: ").removeprefix("invalid regular expression: "))


def _without_groups(pattern: str) -> str:
    """The pattern with no capturing group: the library's extractAll gives a group instead of the match where there is one."""
    made, escaped, in_class = [], False, False
    for index, letter in enumerate(pattern):
        made.append(letter)
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif in_class:
            in_class = letter != "]"
        elif letter == "[":
            in_class = True
        elif letter == "(" and pattern[index + 1 : index + 2] != "?":
            made.append("?:")
    return "".join(made)


@cache
def _expression(text: str) -> Any:
    from atoll.apiserver.customresources.cel import library

    cel = library()
    config = cel.NewEnvConfigFromYaml("name: patterns\nextensions:\n- name: regex\n- name: optional\n")
    return cel.NewEnv(config=config, variables={"text": cel.Type.STRING, "pattern": cel.Type.STRING}).compile(text)
