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
HOME_MODE = 0o710  # what containers were told, secrets among it, is nobody else's to read
OTHERS_WRITE = 0o002


def home_directory(environ: Mapping[str, str]) -> str:
    """ATOLL_HOME as an absolute path; else /var/lib/atoll for root, the XDG data directory for others."""
    named = environ.get("ATOLL_HOME")
    if named:
        return os.path.abspath(named)
    if os.geteuid() == 0:
        return "/var/lib/atoll"
    return os.path.join(environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "atoll")


def make_home(home: str) -> None:
    """Make the directory where it is missing. Raises Forbidden where it is another user's or anybody's to write to: whoever may put files
    into it could put their own socket, keys or programs there.
    """
    os.makedirs(os.path.dirname(home), exist_ok=True)
    try:
        os.mkdir(home, HOME_MODE)
    except FileExistsError:
        status = os.stat(home)
    else:
        return
    from atoll.errors import Forbidden

    if status.st_uid != os.geteuid():
        raise Forbidden(f"{home} belongs to user {status.st_uid}, not to you ({os.geteuid()}): choose another ATOLL_HOME")
    if status.st_mode & OTHERS_WRITE:
        raise Forbidden(f"anybody may write to {home}: chmod o-w it, or choose another ATOLL_HOME")
