from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atoll.config import Instance
from engine_harness import ATOLL, EngineDaemon

Atoll = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def engine(module_instance: Instance) -> Iterator[EngineDaemon]:
    daemon = EngineDaemon(module_instance)
    try:
        daemon.start()
        daemon.make_busybox()
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture
def atoll(engine: EngineDaemon, tmp_path: Path) -> Atoll:
    """The command as a user runs it, on the module's engine."""
    environ = {**os.environ, "ATOLL_HOME": str(engine.instance.home), "DOCKER_CONFIG": str(tmp_path / "docker-config")}

    def run(*words: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([ATOLL, *words], env=environ, input=stdin or "", capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
        return done

    return run
