from __future__ import annotations

from collections.abc import Iterator

import pytest

from atoll.config import Instance
from cluster_harness import Cluster


@pytest.fixture(scope="module")
def cluster(module_instance: Instance) -> Iterator[Cluster]:
    made = Cluster(module_instance)
    try:
        made.atoll("engine", "start")
        made.engine.make_busybox()
        made.atoll("cluster", "start")
        yield made
    finally:
        made.atoll("cluster", "delete", check=False)
        made.atoll("engine", "stop", check=False)
