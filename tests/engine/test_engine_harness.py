"""What tests stand on: nothing stays of an instance, however a test has left its engine."""

from __future__ import annotations

import pytest

from atoll.config import Instance
from engine_harness import EngineDaemon


def test_destroy_after_an_engine_that_cannot_start(instance: Instance) -> None:
    daemon = EngineDaemon(instance)
    try:
        daemon.start()
        daemon.make_busybox()
        daemon.docker("network", "create", "net")
        daemon.docker("run", "-d", "--network", "net", "--restart", "always", "-p", "127.0.0.1::80", "busybox", "sleep", "60")
    finally:
        daemon.kill()
        for path in instance.home.glob("engine.db*"):
            path.write_bytes(b"no database" * 1000)
        with pytest.raises(Exception, match="database"):
            daemon.destroy()  # the fixture judges what is left
