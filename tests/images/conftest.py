"""A store of its own for each test, and registries for the session."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from atoll.config import Instance
from atoll.images import ImageStore
from image_harness import Registry


@pytest.fixture
def store(instance: Instance) -> Iterator[ImageStore]:
    store = ImageStore(instance)
    store.open()
    yield store
    store.close()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed")
    registry = Registry(tmp_path_factory.mktemp("registry"))
    yield registry
    registry.stop()


@pytest.fixture(scope="session")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One that knows user "ann" with password "secret"."""
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed")
    directory = tmp_path_factory.mktemp("locked")
    # bcrypt of "secret": the only hash docker-registry takes.
    (directory / "htpasswd").write_text("ann:$2b$05$UXlKEPYQYBaWEC5XJW/5Xe90ax/c394aK9Q7w8m1FcZPauUXbY5Ae\n")
    registry = Registry(directory, f"auth: {{htpasswd: {{realm: test, path: {directory / 'htpasswd'}}}}}\n")
    yield registry
    registry.stop()
