"""Start this instance's engine in the background and return when it answers."""

from __future__ import annotations

import os
import sys

from atoll.home import home_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NEEDS_ROOT = "containers need root for now: run atoll with sudo"


def start_engine(words: Sequence[str] = ()) -> None:
    """WORDS are the daemon's own flags.

    Raises Forbidden for who is not root, Unavailable with the daemon's last words where it does not come up.
    """
    from atoll.errors import Forbidden
    from atoll.process import spawn

    if os.geteuid() != 0:
        raise Forbidden(f"{NEEDS_ROOT}. `atoll doctor` tells what this machine allows")
    home = home_directory(os.environ)
    spawn("atoll.node.daemon", log=os.path.join(home, "logs", "engine.log"), home=home, interpreter=sys.executable, words=words)
