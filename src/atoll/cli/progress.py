"""Progress of pulls, pushes, loads and builds: the engine's JSON lines as docker shows them.

On a terminal each layer has a line that is redrawn in place, with a bar while bytes move; elsewhere each new state is one plain line.
"""

from __future__ import annotations

import os
import sys

from atoll.cli.human import size
from atoll.cli.wire import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO

BAR = 50  # columns of the bar, as docker draws it
NARROW = 110  # below this many columns the bar is left out


def follow(messages: Iterable[Any], *, quiet: bool = False, file: TextIO | None = None) -> list[Any]:
    """Show MESSAGES as they come and return the values of their `aux` fields. Raises EngineError on an `error` message."""
    output = sys.stdout if file is None else file
    board = _Board(output) if output.isatty() else None
    found = []
    for message in messages:
        if "error" in message or "errorDetail" in message:
            detail = message.get("errorDetail") or {}
            raise EngineError(500, str(detail.get("message") or message.get("error")))
        if "aux" in message:
            found.append(message["aux"])
        if quiet:
            continue
        if "stream" in message:
            output.write(message["stream"])
            output.flush()
        elif message.get("id") and "status" in message:
            if board:
                columns = _columns(output)
                board.update(message["id"], line(message, columns)[: columns - 1])  # a line that wraps would move the rows below it
            elif message["status"] not in ("Downloading", "Extracting", "Pushing"):
                output.write(f"{message['id']}: {message['status']}\n")
        elif "status" in message:
            output.write(message["status"] + "\n")
            if board:
                board.line_written()
    output.flush()
    return found


def line(message: dict[str, Any], columns: int) -> str:
    """One layer's line: state, bar, and how far it is."""
    detail = message.get("progressDetail") or {}
    text = f"{message['id']}: {message['status']}"
    current, total = detail.get("current"), detail.get("total")
    if not current:
        return text
    if not total or total < current:
        return f"{text} {size(current, 4)}"
    done = current * BAR // total
    bar = f"[{'=' * done}>{' ' * (BAR - done)}] " if columns >= NARROW else ""
    return f"{text} {bar}{size(current, 4)}/{size(total, 4)}"


def _columns(output: TextIO) -> int:
    try:
        return os.get_terminal_size(output.fileno()).columns
    except OSError:
        return 80


class _Board:
    """Lines that are redrawn in place by cursor movements."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._rows: list[str] = []

    def update(self, identifier: str, text: str) -> None:
        if identifier not in self._rows:
            self._rows.append(identifier)
            self._output.write(text + "\n")
        else:
            up = len(self._rows) - self._rows.index(identifier)
            self._output.write(f"\x1b[{up}A\r\x1b[2K{text}\x1b[{up}B\r")
        self._output.flush()

    def line_written(self) -> None:
        """A line outside the board ends it: rows above can no longer be told from it."""
        self._rows.clear()
