"""What a full disk means to whoever asked: which commands give some of it back."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from atoll.errors import SystemFailure, Unavailable

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
FREE: Final = "give some back with `docker builder prune`, `docker image prune` or `docker system prune`"


@contextmanager
def room() -> Iterator[None]:
    """Raises Unavailable with the next step in the place of a full disk's errors."""
    try:
        yield
    except (OSError, SystemFailure) as error:
        if error.errno not in FULL:
            raise
        raise Unavailable(f"no space left on device: {FREE}") from error
