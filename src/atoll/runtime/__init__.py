"""OCI bundle to processes: the keeper that owns containers, and the asyncio client of it.

`Runtime` is what the floors above use. Behind it stands the keeper (`atoll.runtime.keeper`), one small process for each instance that
forks, feeds, logs and reaps every container, so that the node process may be killed and started again without a container noticing.

Names are loaded on first use: the keeper imports modules of this package and must not pay for asyncio, dataclasses or pathlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.runtime.attach import Attach
    from atoll.runtime.client import Runtime
    from atoll.runtime.errors import CommandNotExecutable, CommandNotFound, KeeperLost, StartFailed
    from atoll.runtime.spec import default_spec
    from atoll.runtime.types import ExitStatus, OtherRuntime, Overlay, RuntimeState

__all__ = [
    "Attach",
    "CommandNotExecutable",
    "CommandNotFound",
    "ExitStatus",
    "KeeperLost",
    "OtherRuntime",
    "Overlay",
    "Runtime",
    "RuntimeState",
    "StartFailed",
    "default_spec",
]

_HOME = {
    "Attach": "attach",
    "CommandNotExecutable": "errors",
    "CommandNotFound": "errors",
    "ExitStatus": "types",
    "KeeperLost": "errors",
    "OtherRuntime": "types",
    "Overlay": "types",
    "Runtime": "client",
    "RuntimeState": "types",
    "StartFailed": "errors",
    "default_spec": "spec",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
