"""How an image's history tells of its steps, in the words of the builder that is asked for.

Docker has two, and tools know both: the classic builder tells a RUN by its command and anything else by a comment that no shell ran,
"#(nop)"; BuildKit tells the instruction as it stands in the file, expanded. A history is part of the configuration, and so of the image's
id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from atoll.build.config import Config, ports_of, shell
from atoll.build.state import State
from atoll.build.syntax import Instruction
from atoll.units import format_duration

Told = dict[str, str]
BUILDKIT = "buildkit.dockerfile.v0"
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}


class History(Protocol):
    """What an entry says beside its time; None where the step has no entry."""

    def run(self, command: Sequence[str], state: State) -> Told: ...

    def files(self, instruction: Instruction, config: Config, content: str, words: Sequence[str]) -> Told:
        """COPY and ADD: CONTENT is "file:<digest>", WORDS are flags, sources and target, expanded."""
        ...

    def workdir(self, config: Config, path: str) -> Told: ...

    def argument(self, instruction: Instruction, state: State, names: Sequence[str]) -> Told:
        """ARG, after which STATE is; NAMES are those it declares."""
        ...

    def metadata(self, instruction: Instruction, before: Config, after: Config, text: str) -> Told | None:
        """TEXT is the instruction's own, expanded; commands are told as they will run."""
        ...


class Classic:
    """`docker build` with DOCKER_BUILDKIT=0, and docker-py."""

    def run(self, command: Sequence[str], state: State) -> Told:
        declared = [f"{name}={value}" for name, value in state.declared.items()]
        return {"created_by": " ".join([f"|{len(declared)}", *declared, *command] if declared else command)}

    def files(self, instruction: Instruction, config: Config, content: str, words: Sequence[str]) -> Told:
        return _comment(config, f"{instruction.name} {content} in {words[-1]} ")

    def workdir(self, config: Config, path: str) -> Told:
        return _comment(config, f"WORKDIR {path}")

    def argument(self, instruction: Instruction, state: State, names: Sequence[str]) -> Told:
        return _comment(state.config, f" ARG {instruction.text}")

    def metadata(self, instruction: Instruction, before: Config, after: Config, text: str) -> Told | None:
        name = instruction.name
        if name in ("CMD", "ENTRYPOINT"):
            text = json.dumps(after[name.title()], ensure_ascii=False)
        flags = [f"--{flag}={value}" for flag, value in instruction.flags]
        return _comment(before, " ".join(["", name, *flags, text]))


class BuildKit:
    """buildx, bake, compose, and `docker build` of today."""

    def run(self, command: Sequence[str], state: State) -> Told:
        values = state.variables
        asked = [f"{name}={values.get(name, '')}" for name in state.asked]
        return _told(" ".join(["RUN", *([f"|{len(asked)}", *asked] if asked else ()), *command, "# buildkit"]))

    def files(self, instruction: Instruction, config: Config, content: str, words: Sequence[str]) -> Told:
        return _told(" ".join([instruction.name, *words, "# buildkit"]))

    def workdir(self, config: Config, path: str) -> Told:
        return _told(f"WORKDIR {path}")

    def argument(self, instruction: Instruction, state: State, names: Sequence[str]) -> Told:
        values = state.arguments
        return _told(" ".join(["ARG", *(f"{name}={values[name]}" if name in values else name for name in names)]))

    def metadata(self, instruction: Instruction, before: Config, after: Config, text: str) -> Told | None:
        match instruction.name:
            case "ONBUILD":
                return None
            case "CMD" | "ENTRYPOINT":
                text = _words(after[instruction.name.title()])
            case "HEALTHCHECK":
                text = _health(after["Healthcheck"])
            case "EXPOSE":
                text = f"[{' '.join(_ports(instruction, text))}]"
        return _told(f"{instruction.name} {text}")


def _comment(config: Config, text: str) -> Told:
    return {"created_by": f"{' '.join(shell(config))} #(nop) {text}"}


def _told(text: str) -> Told:
    return {"created_by": text, "comment": BUILDKIT}


def _health(check: dict[str, Any]) -> str:
    """As Go prints a pointer to docker's HealthConfig with %q: numbers are quoted as the character of that number."""
    names = ("Interval", "Timeout", "StartPeriod", "StartInterval")
    times = [f'"{format_duration(check.get(name, 0))}"' for name in names]
    return f"&{{{' '.join([_words(check['Test']), *times, _character(check.get('Retries', 0))])}}}"


def _ports(instruction: Instruction, text: str) -> list[str]:
    """In the order of the words as they were before they were expanded."""
    pairs = zip(instruction.text.split(), text.split(), strict=False)
    return [port for _, word in sorted(pairs) for port in ports_of(word)]


def _words(words: Sequence[str]) -> str:
    """A list of strings, as Go prints it with %q."""
    return f"[{' '.join(_quoted(word) for word in words)}]"


def _quoted(text: str, mark: str = '"') -> str:
    """Go's strconv.Quote."""
    return mark + "".join(f"\\{char}" if char == mark else _escaped(char) for char in text) + mark


def _character(number: int) -> str:
    return _quoted(chr(number) if number < 0xD800 or 0xE000 <= number <= 0x10FFFF else "\ufffd", "'")


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80 or 0xDC80 <= code <= 0xDCFF:  # the latter is a byte that was no UTF-8 (PEP 383)
        return f"\\x{code & 0xFF:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
