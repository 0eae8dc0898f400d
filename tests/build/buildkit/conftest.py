from __future__ import annotations

import pytest

from buildx_harness import Buildx


@pytest.fixture
def buildx(engine, tmp_path):
    return Buildx(engine, tmp_path / "docker")
