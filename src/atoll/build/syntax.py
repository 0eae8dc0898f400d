"""The syntax tree of a Dockerfile: instructions in order, each with its place in the file."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.errors import InvalidInput


class DockerfileError(InvalidInput):
    """Something is wrong on a line; the message begins with it, as the reference builder's does. `file` where it has another name."""

    def __init__(self, line: int, message: str, file: str = "") -> None:
        where = f"{file}: " if file and file != "Dockerfile" else ""
        super().__init__(f"{where}dockerfile parse error on line {line}: {message}")
        self.line = line
        self.message = message

    def named(self, file: str) -> DockerfileError:
        """The same error, of a file of that name."""
        return DockerfileError(self.line, self.message, file)


@dataclass(frozen=True, slots=True)
class Heredoc:
    """`<<NAME` and the lines up to NAME. `expand` is false where the name was quoted; `content` ends with a newline unless empty.

    `opening` is the word as it stands in the instruction.
    """

    name: str
    content: str
    expand: bool
    opening: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    `name` is in capitals, `keyword` as it was written. `flags` are the leading `--name=value` words in order; a flag without a value has
    "". `text` is all after them, continuation lines joined. `words` is the JSON array of the exec form, None where the text is not one.
    `line` counts from 1, `last_line` is where it ends; `has_gap` tells of an empty line within a continuation. `comments` stand above it.
    """

    name: str
    text: str
    line: int
    flags: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] | None = None
    heredocs: tuple[Heredoc, ...] = ()
    keyword: str = ""
    has_gap: bool = False
    last_line: int = 0
    comments: tuple[str, ...] = ()

    def flag(self, name: str) -> str | None:
        return next((value for key, value in self.flags if key == name), None)

    def every_flag(self, name: str) -> list[str]:
        return [value for key, value in self.flags if key == name]

    def switch(self, name: str, *, default: bool = False) -> bool:
        """A flag that is true or false; alone it is true."""
        value = self.flag(name)
        return default if value is None else value != "false"

    def description(self, name: str) -> str:
        """What the comment that begins with NAME says of it, which is an argument or a stage of this instruction; "" without one."""
        return next((comment.removeprefix(f"{name} ") for comment in self.comments if name and comment.startswith(f"{name} ")), "")

    def __str__(self) -> str:
        """As it is shown and hashed: the instruction on one line."""
        flags = [f"--{name}={value}" if value else f"--{name}" for name, value in self.flags]
        return " ".join(part for part in (self.name, *flags, self.text) if part)


@dataclass(frozen=True, slots=True)
class Stage:
    """FROM and what follows it. `base` and `platform` are as written, variables unexpanded; `name` is in small letters or empty."""

    index: int
    base: str
    name: str
    platform: str
    origin: Instruction
    body: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A whole file: ARGs before the first FROM, then the stages. `escape` is the escape character, `check` the directive of that name."""

    arguments: tuple[Instruction, ...]
    stages: tuple[Stage, ...]
    escape: str = "\\"
    check: str = ""
