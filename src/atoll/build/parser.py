"""Logical lines to instructions and stages. What an instruction means is the evaluation's affair; its form is checked here."""

from __future__ import annotations

import json
import re

from atoll.build.lexer import SIZE_MAX, Logical, logical_lines, read_directives
from atoll.build.syntax import Dockerfile, DockerfileError, Instruction, Stage
from atoll.errors import LimitExceeded, NotSupported

FLAGS: dict[str, frozenset[str]] = {
    "ADD": frozenset({"chown", "chmod", "link", "checksum", "keep-git-dir", "exclude", "unpack"}),
    "COPY": frozenset({"from", "chown", "chmod", "link", "parents", "exclude"}),
    "FROM": frozenset({"platform"}),
    "HEALTHCHECK": frozenset({"interval", "timeout", "start-period", "start-interval", "retries"}),
    "RUN": frozenset({"mount", "network", "security", "device"}),
}
REPEATED_FLAGS = frozenset({"mount", "device", "exclude"})
SWITCHES = frozenset({"link", "parents", "keep-git-dir", "unpack"})
INSTRUCTIONS = frozenset(
    {
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD"),
        *("RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    }
)
JSON_FORM = frozenset({"ADD", "CMD", "COPY", "ENTRYPOINT", "RUN", "SHELL", "VOLUME"})
FLAG = re.compile(r"""--([a-z-]+)(?:=((?:"[^"]*"|'[^']*'|[^\s"'])*))?(?:\s+|$)""")
STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*$")
STAGES_MAX = 1000  # a file with more is no work of a person
ONBUILD_REFUSED = frozenset({"FROM", "MAINTAINER"})
# The language is built in; the image that brings it to other builders need not be fetched, and no other frontend is run.
FRONTEND = re.compile(r"(?:docker\.io/)?docker/dockerfile(?:-upstream)?(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?$", re.ASCII)


def parse(data: bytes, file: str = "Dockerfile") -> Dockerfile:
    """Raises DockerfileError (InvalidInput) with file and line, LimitExceeded for a file that is too large, NotSupported."""
    if len(data) > SIZE_MAX:
        raise LimitExceeded(f"{file} is larger than {SIZE_MAX >> 20} MB")
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        return _parse(text)
    except DockerfileError as error:
        raise error.named(file) from None


def _parse(text: str) -> Dockerfile:
    if "\0" in text:
        raise DockerfileError(text[: text.index("\0")].count("\n") + 1, "a NUL byte has no place in a Dockerfile")
    lines = text.split("\n")
    directives, first = read_directives(lines)
    escape = directives.get("escape", "\\")
    if escape not in ("\\", "`"):
        raise DockerfileError(1, f"invalid ESCAPE '{escape}'. Must be ` or \\")
    check_frontend(directives.get("syntax", ""))
    found = [parse_instruction(logical) for logical in logical_lines(lines, first, escape)]
    if not found:
        raise DockerfileError(1, "file with no instructions")
    return _staged(found, escape, directives.get("check", ""))


def check_frontend(image: str) -> None:
    """Raises NotSupported for a frontend that is not Docker's own Dockerfile."""
    if image and not FRONTEND.match(image.split(maxsplit=1)[0]):
        raise NotSupported(f"the frontend {image} is not supported: the builder reads Dockerfiles itself. Remove the line '# syntax='")


def parse_trigger(text: str, line: int) -> Instruction:
    """What ONBUILD has kept, here-documents below it. LINE is that of the FROM that sets it off."""
    first, *more = text.split("\n")
    return parse_instruction(next(logical_lines([first, *more], 0, "\\"), Logical(text, line)), line)


def parse_instruction(logical: Logical, line: int | None = None) -> Instruction:
    """One instruction; LINE where it is not the text's own. Raises DockerfileError."""
    line = line or logical.line
    keyword, *more = logical.text.split(None, 1)
    rest = more[0] if more else ""
    name = keyword.upper()
    if name not in INSTRUCTIONS:
        raise DockerfileError(line, f"unknown instruction: {keyword}")
    flags, rest = _flags(name, rest.strip(), line)
    if not rest:
        needs = "requires at least one argument" if name != "FROM" else "requires either one or three arguments"
        raise DockerfileError(line, f"{name} {needs}")
    if name == "ONBUILD":
        _check_trigger(rest, line)
    words = _json_words(rest) if name in JSON_FORM else None
    if name == "SHELL" and not words:
        raise DockerfileError(line, "SHELL requires the arguments to be in JSON form")
    last_line = max(line, logical.last_line)
    return Instruction(name, rest, line, flags, words, logical.heredocs, keyword, logical.has_gap, last_line, logical.comments)


def _check_trigger(text: str, line: int) -> None:
    trigger = text.split(None, 1)[0].upper()
    if trigger == "ONBUILD":
        raise DockerfileError(line, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ONBUILD_REFUSED:
        raise DockerfileError(line, f"{trigger} isn't allowed as an ONBUILD trigger")
    parse_instruction(Logical(text, line))


def _flags(name: str, rest: str, line: int) -> tuple[tuple[tuple[str, str], ...], str]:
    known = FLAGS.get(name)
    found: dict[str, list[str]] = {}
    while known is not None and (match := FLAG.match(rest)):
        flag, value = match[1], match[2]
        if flag not in known:
            raise DockerfileError(line, f"unknown flag: --{flag}")
        if flag in found and flag not in REPEATED_FLAGS:
            raise DockerfileError(line, f"Duplicate flag specified: {flag}")
        if flag in SWITCHES:
            if value not in (None, "true", "false"):
                raise DockerfileError(line, f"expecting boolean value for flag {flag}, not: {value}")
        elif not value:
            raise DockerfileError(line, f"missing a value on flag: {flag}")
        found.setdefault(flag, []).append(value or "")
        rest = rest[match.end() :]
    return tuple((flag, value) for flag, values in found.items() for value in values), rest.strip()


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


def _staged(found: list[Instruction], escape: str, check: str) -> Dockerfile:
    arguments: list[Instruction] = []
    heads: list[Instruction] = []
    bodies: list[list[Instruction]] = []
    for instruction in found:
        if instruction.name == "FROM":
            heads.append(instruction)
            bodies.append([])
            if len(heads) > STAGES_MAX:
                raise DockerfileError(instruction.line, f"more than {STAGES_MAX} stages")
        elif heads:
            bodies[-1].append(instruction)
        elif instruction.name == "ARG":
            arguments.append(instruction)
        else:
            raise DockerfileError(instruction.line, f"no build stage in current context: {instruction.name} stands before the first FROM")
    if not heads:
        raise DockerfileError(found[-1].line, "no build stage: the file has no FROM")
    stages = tuple(_stage(index, head, tuple(body)) for index, (head, body) in enumerate(zip(heads, bodies, strict=True)))
    return Dockerfile(tuple(arguments), stages, escape, check)


def _stage(index: int, head: Instruction, body: tuple[Instruction, ...]) -> Stage:
    words = head.text.split()
    if len(words) == 1:
        name = ""
    elif len(words) == 3 and words[1].upper() == "AS":
        name = words[2].lower()
    else:
        raise DockerfileError(head.line, "FROM requires either one or three arguments")
    if name and not STAGE_NAME.match(name):
        raise DockerfileError(head.line, f'invalid name for build stage: "{words[2]}", name can\'t start with a number or contain symbols')
    return Stage(index, words[0], name, head.flag("platform") or "", head, body)
