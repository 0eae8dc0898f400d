"""Fixtures every test may use, and the guard that nothing is left behind.

A test that needs an engine or a cluster makes an instance of its own under a short temporary directory; the session's last check compares
mounts, links, namespaces, cgroups, nftables tables and processes with what stood before.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.config import Instance


@pytest.fixture
def instance() -> Iterator[Instance]:
    """An instance of its own; short, since unix socket paths end at 107 bytes."""
    home = tempfile.mkdtemp(prefix="at-", dir="/tmp")
    yield Instance(Path(home))
    shutil.rmtree(home)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        needs_root = pytest.mark.skip(reason="makes namespaces and mounts: run as root")
        for item in items:
            if "root" in item.keywords:
                item.add_marker(needs_root)
