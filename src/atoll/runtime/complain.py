"""One line to the keeper's log (its stderr). The disk being full must not be the end of the keeper, so a line that cannot be written is
dropped; print would raise.
"""

from __future__ import annotations

import os
import time


def complain(text: str) -> None:
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n"
    try:
        os.write(2, line.encode(errors="backslashreplace"))
    except OSError:
        return
