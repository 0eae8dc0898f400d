"""Which directory is this instance's home: the one rule, in a module so small that the command line's quick path can afford it.

`atoll.config.Instance` builds on it; the CLI, which must answer in milliseconds, uses it bare (dataclasses and pathlib together cost as
much as the interpreter's own start).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing itself is not free; type checkers know this name
if TYPE_CHECKING:
    from collections.abc import Mapping

ENGINE_SOCKET = "run/engine.sock"  # below the home


def home_directory(environ: Mapping[str, str]) -> str:
    """ATOLL_HOME as an absolute path; else /var/lib/atoll for root, the XDG data directory for others."""
    named = environ.get("ATOLL_HOME")
    if named:
        return os.path.abspath(named)
    if os.geteuid() == 0:
        return "/var/lib/atoll"
    return os.path.join(environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "atoll")
