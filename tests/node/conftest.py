from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_harness import BUSYBOX
from namespaces import greeter, outside
from node_harness import KUBECTL, Cluster

__all__ = ["greeter", "outside"]


@pytest.fixture(scope="module")
def cluster(module_instance) -> Iterator[Cluster]:
    """A running cluster of one node, for the tests of a module."""
    if not Path(KUBECTL).exists() or not Path(BUSYBOX).exists():
        pytest.skip("kubectl and a static busybox are needed")
    made = Cluster(module_instance)
    try:
        made.start()
        yield made
    finally:
        made.destroy()
