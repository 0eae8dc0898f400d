"""Add-ons: what a cluster brings up beside itself when it is asked to, and takes along when it stops.

There is one: a registry on this machine's loopback, over the content the node runs from. Images pushed to it are in no other place and
come over no network; the node speaks plain HTTP to loopback, so nothing has to be trusted first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from atoll.config import Instance
from atoll.errors import InvalidInput
from atoll.process import end, pid_of, spawn

REGISTRY: Final = "registry"
DEFAULT_ADDRESS: Final = "127.0.0.1:5000"
LOOPBACK: Final = ("127.0.0.1", "localhost")

Report = Callable[[str], None]


def enable_registry(instance: Instance, address: str, report: Report) -> None:
    """Starts it, now and whenever the cluster starts. Raises InvalidInput, Unavailable with its last words."""
    host, _, port = address.rpartition(":")
    if host not in LOOPBACK or not port.isdecimal() or not 0 < int(port) <= 65535:
        raise InvalidInput(f"the registry add-on listens on this machine alone, without passwords: write 127.0.0.1:PORT, not {address}")
    if _pid(instance) is not None and _address(instance) != address:
        end(_pid(instance))
    _file(instance).write_text(f"{address}\n")
    resume(instance, report)


def disable_registry(instance: Instance, report: Report) -> None:
    """Stops it; what was pushed stays."""
    _file(instance).unlink(missing_ok=True)
    suspend(instance, report)


def resume(instance: Instance, report: Report) -> None:
    """Starts the add-ons that were asked for and do not run."""
    address = _address(instance)
    if address is None or _pid(instance) is not None:
        return
    report(f"Starting the registry at {address}")
    words = ["--addr", address, "--pid-file", str(_pid_file(instance))]
    spawn("atoll.registry.daemon", log=instance.logs / "registry.log", home=instance.home, interpreter=sys.executable, words=words)


def suspend(instance: Instance, report: Report) -> None:
    """Stops the add-ons."""
    pid = _pid(instance)
    if pid is not None:
        report("Stopping the registry")
        end(pid)


def _address(instance: Instance) -> str | None:
    try:
        return _file(instance).read_text().strip()
    except FileNotFoundError:
        return None


def _pid(instance: Instance) -> int | None:
    return pid_of(_pid_file(instance))


def _file(instance: Instance) -> Path:
    return instance.cluster / "registry-addon"


def _pid_file(instance: Instance) -> Path:
    return instance.cluster / "registry.pid"
