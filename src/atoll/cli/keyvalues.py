"""Words such as A=1 on the command line and in files: --env, --env-file, --label, --label-file, --opt and their like."""

from __future__ import annotations

import os

from atoll.cli.flags import Options, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def mapping(words: Iterable[str]) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def lines_of(paths: list[str], flag: str) -> Iterable[str]:
    """The lines of --env-file and --label-file: no blanks, no comments."""
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise UsageError(f"--{flag}: open {path}: {(error.strerror or '').lower()}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"--{flag}: {path} contains invalid utf8 bytes at offset {error.start}") from error
        for number, line in enumerate(text.splitlines(), 1):
            entry = line.lstrip().removeprefix("\ufeff")
            if not entry or entry.startswith("#"):
                continue
            name = entry.partition("=")[0]
            if not name or any(space in name for space in " \t"):
                raise UsageError(f"--{flag}: {path}, line {number}: invalid name '{name}': white space is not allowed")
            yield entry


def environment(options: Options) -> list[str]:
    """--env-file then --env; a name without `=` takes the caller's own value, or is left out."""
    found = []
    for word in [*lines_of(options["env-file"], "env-file"), *options["env"]]:
        name, equals, _ = word.partition("=")
        if not name:
            raise UsageError(f"invalid environment variable: {word}")
        if equals:
            found.append(word)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return found


def fields(word: str) -> list[str]:
    """The comma-separated fields of --mount, --network and --gpus; quotes keep commas together (RFC 4180)."""
    if '"' not in word:
        return word.split(",")
    import csv

    return next(csv.reader([word]))
