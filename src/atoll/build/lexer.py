"""Dockerfile text to logical lines: directives, comments, continuations and here-documents (Docker reference, "Format")."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from atoll.build.syntax import DockerfileError, Heredoc

SIZE_MAX = 2 << 20  # bytes; the reference builder refuses more than 2 MB of Dockerfile
DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
DIRECTIVES = frozenset({"syntax", "escape", "check"})
HEREDOC = re.compile(r"<<(-?)\s*(?:\"([^\"]+)\"|'([^']+)'|([a-zA-Z_][a-zA-Z0-9_.]*))")
WITH_HEREDOCS = frozenset({"RUN", "COPY", "ADD"})


@dataclass(frozen=True, slots=True)
class Logical:
    """One instruction's text, on one line, and where it began."""

    text: str
    line: int
    heredocs: tuple[Heredoc, ...] = ()


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
    """LINES from index FIRST on, comments and blanks dropped, continuations joined, here-documents taken out."""
    continued = re.compile(re.escape(escape) + r"[ \t]*$")
    number = first
    while number < len(lines):
        start = number
        line = lines[number].lstrip() if lines[number].strip() else ""
        number += 1
        if not line or line.startswith("#"):
            continue
        parts = []
        while match := continued.search(line):
            parts.append(line[: match.start()])
            line = ""
            # Comments and blank lines between continuations are passed over.
            while number < len(lines):
                line = lines[number]
                number += 1
                if line.strip() and not line.lstrip().startswith("#"):
                    break
                line = ""
            else:
                break
        parts.append(line)
        text = "".join(parts).strip()
        if not text:
            continue
        heredocs: list[Heredoc] = []
        if text.split(None, 1)[0].upper() in WITH_HEREDOCS:
            for chomp, name, expand in _openings(text):
                content, number = _heredoc(lines, number, name, start + 1, strip=bool(chomp))
                heredocs.append(Heredoc(name, content, expand))
        yield Logical(text, start + 1, tuple(heredocs))


def _openings(text: str) -> Iterator[tuple[str, str, bool]]:
    """`<<` openings outside quotes; `<<<` is the shell's here-string and none of ours."""
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif text.startswith("<<<", position):
            position += 3
            continue
        elif text.startswith("<<", position) and (match := HEREDOC.match(text, position)):
            quoted = match[2] or match[3]
            yield match[1], quoted or match[4], not quoted
            position = match.end()
            continue
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
