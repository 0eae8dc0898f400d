"""Why a container or an exec did not start, with the exit code a shell would give.

StartFailed                 the runtime could not make the container (Docker answers 500, `docker run` exits 125; state shows 128)
├── CommandNotFound         no such program in the image (400, 127)
└── CommandNotExecutable    it is there but cannot be executed (400, 126)
KeeperLost                  the keeper went away in the middle of a call (503)
"""

from __future__ import annotations

from atoll.errors import AtollError, InvalidInput, Unavailable


class StartFailed(AtollError):
    """`exit_code` is what `State.ExitCode` shall show; the message is in the words of runc, which clients match on."""

    exit_code = 128


class CommandNotFound(StartFailed, InvalidInput):
    exit_code = 127


class CommandNotExecutable(StartFailed, InvalidInput):
    exit_code = 126


class KeeperLost(Unavailable):
    pass
