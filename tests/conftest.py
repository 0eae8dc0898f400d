"""Fixtures every test may use, and the guard that nothing is left behind.

A test that needs an engine or a cluster makes an instance of its own under a short temporary directory. When the test is over, whatever the
instance still has on the machine (processes, mounts, links, cgroups, nftables tables) fails it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.config import Instance

sys.path.insert(0, str(Path(__file__).parent))

from leaks import left_behind

# Where the machine has no docker of its own, the one that `make setup` has fetched (packaging/fetch-docker).
os.environ["PATH"] = os.pathsep.join((os.environ["PATH"], str(Path(sys.prefix) / "docker" / "bin")))


def _made() -> Instance:
    # Short, since unix socket paths end at 107 bytes.
    return Instance(Path(tempfile.mkdtemp(prefix="at-", dir="/tmp")))


def _judged(instance: Instance) -> None:
    left = left_behind(instance)
    if not any(name.startswith("mount") for name in left):
        shutil.rmtree(instance.home)
    assert not left, f"instance {instance.id} at {instance.home} left behind: {left}"


@pytest.fixture
def instance() -> Iterator[Instance]:
    """An instance of its own for one test."""
    made = _made()
    yield made
    _judged(made)


@pytest.fixture(scope="module")
def module_instance() -> Iterator[Instance]:
    """One instance for the tests of a module, where starting its processes for each would take longer than the tests."""
    made = _made()
    yield made
    _judged(made)


@pytest.fixture(scope="session")
def session_instance() -> Iterator[Instance]:
    """One instance for the tests of a directory."""
    made = _made()
    yield made
    _judged(made)
