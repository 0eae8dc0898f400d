"""Command-line flags as Docker reads them (pflag): long and short, joined shorts, `--flag=value`, values that repeat.

A verb declares its flags as data; parsing, `--help` and shell completion all read that one table. Not argparse: importing it costs more
than the whole of `atoll ps` may take, and it does not stop at the first argument as `docker run IMAGE --its-own-flags` needs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

USAGE_ERROR = 125  # docker's exit status where the fault is the command line's or the engine's


class UsageError(Exception):
    """The command line is wrong; the message is followed by the way to the help."""


class Flag:
    """One flag. `kind` is bool, string, int, or list (a string that may repeat)."""

    __slots__ = ("help", "kind", "name", "short", "value")

    def __init__(self, name: str, short: str = "", kind: str = "bool", text: str = "", value: str = "") -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.help = text
        self.value = value or {"bool": "", "string": "string", "int": "int", "list": "list"}[kind]


class Options:
    """Parsed flags by name, with dashes; absent ones read as None, False or []."""

    __slots__ = ("_flags", "given")

    def __init__(self, flags: dict[str, Flag]) -> None:
        self._flags = flags
        self.given: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name in self.given:
            return self.given[name]
        kind = self._flags[name].kind
        return False if kind == "bool" else [] if kind == "list" else None

    def get(self, name: str, default: Any = None) -> Any:
        return self.given.get(name, default)

    def __contains__(self, name: str) -> bool:
        return name in self.given


class Command:
    """A verb: its usage, flags and the function that carries it out and returns the exit status."""

    __slots__ = ("arguments", "flags", "interspersed", "maximum", "minimum", "run", "summary")

    def __init__(
        self,
        run: Callable[[Options, list[str]], int],
        arguments: str,
        summary: str,
        flags: Sequence[Flag] = (),
        *,
        minimum: int = 0,
        maximum: int | None = None,
        interspersed: bool = True,
    ) -> None:
        self.run = run
        self.arguments = arguments
        self.summary = summary
        self.flags = flags
        self.minimum = minimum
        self.maximum = maximum
        self.interspersed = interspersed


BOOLEANS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


def parse(command: Command, words: list[str]) -> tuple[Options, list[str]]:
    """Split WORDS into flags and arguments. Raises UsageError in Docker's words."""
    longs = {flag.name: flag for flag in command.flags}
    shorts = {flag.short: flag for flag in command.flags if flag.short}
    options = Options(longs)
    arguments: list[str] = []
    queue = list(reversed(words))
    while queue:
        word = queue.pop()
        if word == "--":
            arguments.extend(reversed(queue))
            break
        if word.startswith("--"):
            _long(options, longs, word, queue)
        elif word.startswith("-") and word != "-":
            _shorts(options, shorts, word, queue)
        else:
            arguments.append(word)
            if not command.interspersed:
                arguments.extend(reversed(queue))
                break
    return options, arguments


def _long(options: Options, longs: dict[str, Flag], word: str, queue: list[str]) -> None:
    name, equals, value = word[2:].partition("=")
    flag = longs.get(name)
    if flag is None:
        raise UsageError(f"unknown flag: --{name}{nearest(name, longs, '--')}")
    if flag.kind == "bool":
        _store(options, flag, value if equals else "true")
    elif equals:
        _store(options, flag, value)
    elif queue:
        _store(options, flag, queue.pop())
    else:
        raise UsageError(f"flag needs an argument: --{name}")


def _shorts(options: Options, shorts: dict[str, Flag], word: str, queue: list[str]) -> None:
    for index, letter in enumerate(word[1:], 1):
        flag = shorts.get(letter)
        if flag is None:
            raise UsageError(f"unknown shorthand flag: '{letter}' in {word}")
        rest = word[index + 1 :]
        if flag.kind == "bool":
            if rest.startswith("="):
                _store(options, flag, rest[1:])
                return
            _store(options, flag, "true")
            continue
        if rest:
            _store(options, flag, rest.removeprefix("="))
        elif queue:
            _store(options, flag, queue.pop())
        else:
            raise UsageError(f"flag needs an argument: '{letter}' in {word}")
        return


def _store(options: Options, flag: Flag, value: str) -> None:
    if flag.kind == "bool":
        truth = BOOLEANS.get(value.lower())
        if truth is None:
            raise UsageError(f'invalid argument "{value}" for "--{flag.name}" flag: write true or false')
        options.given[flag.name] = truth
    elif flag.kind == "int":
        try:
            options.given[flag.name] = int(value)
        except ValueError:
            raise UsageError(f'invalid argument "{value}" for "--{flag.name}" flag: not a whole number') from None
    elif flag.kind == "list":
        options.given.setdefault(flag.name, []).append(value)
    else:
        options.given[flag.name] = value


def nearest(word: str, known: Iterable[str], before: str = "") -> str:
    """What WORD was probably meant to be, as the end of a message; "" where nothing comes near."""
    import difflib

    found = difflib.get_close_matches(word, [name for name in known if not name.startswith("_")], n=1)
    return f": did you mean {before}{found[0]}?" if found else ""


def check_arguments(command: Command, arguments: list[str], path: str) -> None:
    """Raises UsageError where there are too few or too many, as Docker says it."""
    count = len(arguments)
    plural = "s" if command.minimum != 1 else ""
    if command.maximum == command.minimum and count != command.minimum:
        if command.minimum == 0:
            raise UsageError(f"'{path}' accepts no arguments")
        raise UsageError(f"'{path}' requires {command.minimum} argument{plural}")
    if count < command.minimum:
        raise UsageError(f"'{path}' requires at least {command.minimum} argument{plural}")
    if command.maximum is not None and count > command.maximum:
        raise UsageError(f"'{path}' requires at most {command.maximum} argument{'s' if command.maximum != 1 else ''}")


def usage(command: Command, path: str) -> str:
    """The text of `--help`."""
    lines = [f"Usage:  {path} {command.arguments}".rstrip(), "", command.summary]
    rows = []
    for flag in sorted(command.flags, key=lambda flag: flag.name):
        short = f"-{flag.short}, " if flag.short else "    "
        rows.append((f"  {short}--{flag.name} {flag.value}".rstrip(), flag.help))
    if rows:
        width = max(len(left) for left, _ in rows) + 3
        lines += ["", "Options:", *(f"{left:<{width}}{text}".rstrip() for left, text in rows)]
    return "\n".join(lines)
