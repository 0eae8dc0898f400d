from __future__ import annotations

from collections.abc import Iterator

import pytest

from atoll.config import Instance
from engine_harness import EngineDaemon


@pytest.fixture(scope="module")
def engine(module_instance: Instance) -> Iterator[EngineDaemon]:
    daemon = EngineDaemon(module_instance)
    try:
        daemon.start()
        daemon.make_busybox()
        yield daemon
    finally:
        daemon.destroy()
