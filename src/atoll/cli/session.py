"""What most verbs share: the engine of this command line, and the same act for several objects."""

from __future__ import annotations

import sys

from atoll.cli.main import Context
from atoll.cli.wire import Engine, EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class CommandFailed(Exception):
    """A verb's own failure; `exit_status` is the command's."""

    def __init__(self, message: str, exit_status: int | None = None) -> None:
        super().__init__(message)
        self.exit_status = Context.failure if exit_status is None else exit_status


def engine() -> Engine:
    return Engine(Context.host)


def each(names: list[str], act: Callable[[str], object]) -> int:
    """ACT on every name; errors go to standard error one by one, and the exit status tells whether there were any (as docker does)."""
    status = 0
    for name in names:
        try:
            said = act(name)
        except EngineError as error:
            print(f"Error response from daemon: {error}", file=sys.stderr)
            status = 1
        else:
            print(name if said is None else said)
    return status


def confirmed(warning: str, force: bool) -> bool:
    """Ask on the terminal, as docker does before a prune."""
    if force:
        return True
    try:
        return input(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ").strip().lower() == "y"
    except EOFError:
        return False


def filters(words: list[str]) -> dict[str, list[str]] | None:
    """`--filter key=value` words to the wire's map of lists."""
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise CommandFailed(f'invalid argument "{word}" for "-f, --filter" flag: invalid filter \'{word}\': write key=value', 125)
        found.setdefault(key.strip().lower(), []).append(value.strip())
    return found or None
