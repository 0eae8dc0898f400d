"""A daemon for the tests of a module, and the images they run."""

from __future__ import annotations

from collections.abc import Iterator

import docker
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


@pytest.fixture
def client(engine: EngineDaemon) -> Iterator[docker.DockerClient]:
    made = engine.client()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test begins without containers of the one before."""
    yield
    if "engine" in request.fixturenames:
        daemon = request.getfixturevalue("engine")
        left = daemon.docker("ps", "-aq").stdout.split()
        if left:
            daemon.docker("rm", "-fv", *left)
