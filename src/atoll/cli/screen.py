"""A terminal's screen that is drawn again in place, as `stats` and `top --watch` do."""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
PACE_S = 1.0


class Screen:
    """Overwrites line by line, so that nothing flickers. Where there is no terminal, text after text."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        if self._is_terminal:
            sys.stdout.write(HOME + REST_OF_SCREEN)

    def draw(self, text: str) -> None:
        if self._is_terminal:
            text = HOME + "".join(f"{line}{REST_OF_LINE}\n" for line in text.splitlines()) + REST_OF_SCREEN
        else:
            text += "\n"
        sys.stdout.write(text)
        sys.stdout.flush()

    def show_every_second(self, look: Callable[[], str]) -> None:
        """Until interrupted."""
        while True:
            self.draw(look())
            time.sleep(PACE_S)
