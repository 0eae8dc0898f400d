"""Dockerfile text to logical lines: directives, comments, continuations and here-documents (Docker reference, "Format")."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from atoll.build.syntax import DockerfileError, Heredoc

SIZE_MAX = 2 << 20  # bytes; the reference builder refuses more than 2 MB of Dockerfile
DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
DIRECTIVES = frozenset({"syntax", "escape", "check"})
# At the start of a word, the name right behind it: `$((1 << 4))`, `$((1<<4))` and the shell's own `cat << EOF` are none of ours.
HEREDOC = re.compile(r"\d*<<(-?)(?:\"([^\"]+)\"|'([^']+)'|([^\s<>\"'|&;()]+))")
WITH_HEREDOCS = re.compile(r"(?:ONBUILD\s+)?(?:RUN|COPY|ADD)\s", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Logical:
    """One instruction's text, on one line, and the lines it began and ended on. `has_gap`: an empty line stood within a continuation.

    `comments` are those between the instruction before and this one, without their marks.
    """

    text: str
    line: int
    heredocs: tuple[Heredoc, ...] = ()
    has_gap: bool = False
    last_line: int = 0
    comments: tuple[str, ...] = ()


def read_directives(lines: list[str]) -> tuple[dict[str, str], int]:
    """The directives at the top, and how many lines they take. Raises DockerfileError for one given twice."""
    found: dict[str, str] = {}
    for number, line in enumerate(lines):
        match = DIRECTIVE.match(line)
        name = match[1].lower() if match else ""
        if not match or name not in DIRECTIVES:
            return found, number
        if name in found:
            raise DockerfileError(number + 1, f"only one {name} parser directive can be used")
        found[name] = match[2]
    return found, len(lines)


def logical_lines(lines: list[str], first: int, escape: str) -> Iterator[Logical]:
    """LINES from index FIRST on, blanks dropped, comments set aside, continuations joined, here-documents taken out."""
    continued = re.compile(re.escape(escape) + r"[ \t]*$")
    number = first
    comments: list[str] = []
    while number < len(lines):
        start = number
        text, number, has_gap = _joined(lines, number, continued)
        if not text:
            comments += [line[1:].strip() for line in (lines[start].lstrip(),) if line.startswith("#")]
            continue
        heredocs: list[Heredoc] = []
        if WITH_HEREDOCS.match(text):
            for opening, chomp, name, expand in _openings(text):
                content, number = _heredoc(lines, number, name, start + 1, strip=bool(chomp))
                heredocs.append(Heredoc(name, content, expand, opening))
        yield Logical(text, start + 1, tuple(heredocs), has_gap, number, tuple(comments))
        comments.clear()


def _joined(lines: list[str], number: int, continued: re.Pattern[str]) -> tuple[str, int, bool]:
    """The logical line that begins at index NUMBER, "" for a comment or a blank; the index behind it; whether it has a gap."""
    line = lines[number].lstrip()
    number += 1
    if not line or line.startswith("#"):
        return "", number, False
    parts, has_gap = [], False
    while match := continued.search(line):
        parts.append(line[: match.start()])
        line = ""
        # Comments and blank lines between continuations are passed over.
        while number < len(lines) and _is_passed_over(lines[number]):
            has_gap |= not lines[number].strip()
            number += 1
        if number < len(lines):
            line = lines[number]
            number += 1
    return "".join([*parts, line]).strip(), number, has_gap


def _is_passed_over(line: str) -> bool:
    bare = line.strip()
    return not bare or bare.startswith("#")


def _openings(text: str) -> Iterator[tuple[str, str, str, bool]]:
    """`<<` openings at the start of words outside quotes; `<<<` is the shell's here-string and none of ours."""
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        if quote:
            quote = "" if char == quote else quote
        elif text[position - 1].isspace() and (match := HEREDOC.match(text, position)):
            quoted = match[2] or match[3]
            yield match[0], match[1], quoted or match[4], not quoted
            position = match.end()
            continue
        elif char in "\"'":
            quote = char
        position += 1


def _heredoc(lines: list[str], number: int, name: str, origin: int, *, strip: bool) -> tuple[str, int]:
    content: list[str] = []
    while number < len(lines):
        line = lines[number]
        number += 1
        if (line.lstrip("\t") if strip else line) == name:
            return "".join(part + "\n" for part in content), number
        content.append(line.lstrip("\t") if strip else line)
    raise DockerfileError(origin, f"unterminated heredoc: no line says {name}")
