"""Logical lines to instructions and stages. What an instruction means is the evaluation's affair; its form is checked here."""

from __future__ import annotations

import json
import re

from atoll.build.lexer import SIZE_MAX, Logical, logical_lines, read_directives
from atoll.build.syntax import Dockerfile, DockerfileError, Instruction, Stage
from atoll.errors import LimitExceeded

FLAGS: dict[str, frozenset[str]] = {
    "ADD": frozenset({"chown", "chmod", "link", "checksum", "keep-git-dir", "exclude", "unpack"}),
    "COPY": frozenset({"from", "chown", "chmod", "link", "parents", "exclude"}),
    "FROM": frozenset({"platform"}),
    "HEALTHCHECK": frozenset({"interval", "timeout", "start-period", "start-interval", "retries"}),
    "RUN": frozenset({"mount", "network", "security", "device"}),
}
INSTRUCTIONS = frozenset(
    {
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD"),
        *("RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    }
)
JSON_FORM = frozenset({"ADD", "CMD", "COPY", "ENTRYPOINT", "RUN", "SHELL", "VOLUME"})
FLAG = re.compile(r"--([a-z-]+)(?:=(\S*))?(?:\s+|$)")
STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*$")
RESERVED_STAGES = frozenset({"context", "scratch"})
STAGES_MAX = 1000  # a file with more is no work of a person


def parse(data: bytes, file: str = "Dockerfile") -> Dockerfile:
    """Raises DockerfileError (InvalidInput) with file and line, LimitExceeded for a file that is too large."""
    if len(data) > SIZE_MAX:
        raise LimitExceeded(f"{file} is larger than {SIZE_MAX >> 20} MB")
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff").replace("\r\n", "\n")
    if "\0" in text:
        raise DockerfileError(text[: text.index("\0")].count("\n") + 1, "a NUL byte has no place in a Dockerfile", file)
    lines = text.split("\n")
    directives, first = read_directives(lines)
    escape = directives.get("escape", "\\")
    if escape not in ("\\", "`"):
        raise DockerfileError(1, f"invalid ESCAPE '{escape}'. Must be ` or \\", file)
    found = [parse_instruction(logical) for logical in logical_lines(lines, first, escape)]
    if not found:
        raise DockerfileError(1, "file with no instructions", file)
    return _staged(found, escape)


def parse_instruction(logical: Logical) -> Instruction:
    """One instruction. Raises DockerfileError."""
    word, *more = logical.text.split(None, 1)
    rest = more[0] if more else ""
    name = word.upper()
    if name not in INSTRUCTIONS:
        raise DockerfileError(logical.line, f"unknown instruction: {word}")
    flags, rest = _flags(name, rest.strip(), logical.line)
    if not rest:
        needs = "requires at least one argument" if name != "FROM" else "requires either one or three arguments"
        raise DockerfileError(logical.line, f"{name} {needs}")
    words = _json_words(rest) if name in JSON_FORM else None
    if name == "SHELL" and not words:
        raise DockerfileError(logical.line, "SHELL requires the arguments to be in JSON form")
    return Instruction(name, rest, logical.line, flags, words, logical.heredocs)


def _flags(name: str, rest: str, line: int) -> tuple[tuple[tuple[str, str], ...], str]:
    known = FLAGS.get(name)
    found = []
    while known is not None and (match := FLAG.match(rest)):
        if match[1] not in known:
            raise DockerfileError(line, f"unknown flag: --{match[1]}")
        found.append((match[1], match[2] or ""))
        rest = rest[match.end() :]
    return tuple(found), rest.strip()


def _json_words(text: str) -> tuple[str, ...] | None:
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None  # the shell form may begin with a bracket
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    return tuple(words)


def _staged(found: list[Instruction], escape: str) -> Dockerfile:
    arguments: list[Instruction] = []
    stages: list[Stage] = []
    body: list[Instruction] = []
    for instruction in found:
        if instruction.name == "FROM":
            if stages:
                stages[-1] = _with_body(stages[-1], body)
            body = []
            stages.append(_stage(instruction, len(stages)))
            if len(stages) > STAGES_MAX:
                raise DockerfileError(instruction.line, f"more than {STAGES_MAX} stages")
        elif stages:
            body.append(instruction)
        elif instruction.name == "ARG":
            arguments.append(instruction)
        else:
            raise DockerfileError(instruction.line, f"no build stage in current context: {instruction.name} stands before the first FROM")
    if not stages:
        raise DockerfileError(found[-1].line, "no build stage: the file has no FROM")
    stages[-1] = _with_body(stages[-1], body)
    return Dockerfile(tuple(arguments), tuple(stages), escape)


def _with_body(stage: Stage, body: list[Instruction]) -> Stage:
    return Stage(stage.index, stage.base, stage.name, stage.platform, stage.origin, tuple(body))


def _stage(instruction: Instruction, index: int) -> Stage:
    words = instruction.text.split()
    if len(words) == 1:
        name = ""
    elif len(words) == 3 and words[1].upper() == "AS":
        name = words[2].lower()
    else:
        raise DockerfileError(instruction.line, "FROM requires either one or three arguments")
    if name and not STAGE_NAME.match(name):
        raise DockerfileError(
            instruction.line,
            f'invalid name for build stage: "{words[2]}", name can\'t start with a number or contain symbols',
        )
    if name in RESERVED_STAGES:
        raise DockerfileError(instruction.line, f'"{name}" is a reserved stage name')
    return Stage(index, words[0], name, instruction.flag("platform") or "", instruction, ())
