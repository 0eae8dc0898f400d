"""Which OCI runtimes a container may be given to: our own, those found in PATH, and those the settings name."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from atoll.engine.settings import Settings
from atoll.errors import InvalidInput
from atoll.runtime import OtherRuntime

OWN = "atoll"
_KNOWN = ("runc", "crun")
_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # whatever the daemon's own PATH leaves out


def others(settings: Settings) -> Mapping[str, Path]:
    """Name to program, looked up anew: a package installed now can be used now."""
    found = {name: Path(path) for name in _KNOWN if (path := shutil.which(name, path=_SEARCH)) is not None}
    return {**found, **settings.runtimes}


def find(settings: Settings, name: str) -> OtherRuntime | None:
    """None for our own. Raises InvalidInput in Docker's words."""
    if name == OWN:
        return None
    found = others(settings)
    if name not in found:
        raise InvalidInput(f"unknown or invalid runtime name: {name}: there is {', '.join((OWN, *found))}")
    return OtherRuntime(name, found[name])
