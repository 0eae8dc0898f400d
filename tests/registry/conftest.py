"""One registry for the tests of a module that leave each other alone, by repositories of their own; and one for each test that needs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_harness import AtollRegistry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AtollRegistry]:
    registry = AtollRegistry(tmp_path_factory.mktemp("registry"))
    yield registry
    assert registry.stop() == 0, registry.log.read_text()
    assert "Traceback" not in registry.log.read_text()


@pytest.fixture
def own_registry(tmp_path: Path) -> Iterator[AtollRegistry]:
    registry = AtollRegistry(tmp_path)
    yield registry
    registry.stop()
