"""An engine for the tests of a module, and projects of the corpus on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from compose_harness import Project

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
def project(engine: EngineDaemon, tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """project("scale") is the corpus's project of that name; down when the test is over."""
    with ExitStack() as stack:
        yield lambda name, **environ: stack.enter_context(Project(engine, name, tmp_path, environ))


@pytest.fixture(scope="module")
def module_project(engine: EngineDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Project]]:
    """The same for all tests of a module: each puts it right with another `up`, which is quicker than beginning anew."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(Project(engine, name, tmp_path_factory.mktemp("module"), {}))
