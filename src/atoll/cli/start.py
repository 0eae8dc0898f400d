"""Start this instance's engine in the background and return when it answers."""

from __future__ import annotations

import os
import sys

from atoll.home import home_directory


def start_engine() -> None:
    """Raises Unavailable with the daemon's last words where it does not come up."""
    from atoll.process import spawn

    home = home_directory(os.environ)
    spawn("atoll.node.daemon", log=os.path.join(home, "logs", "engine.log"), home=home, interpreter=sys.executable)
