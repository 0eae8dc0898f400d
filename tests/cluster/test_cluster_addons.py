"""The registry add-on: a process of the cluster's, over the node's own content."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from atoll.cluster import addons
from atoll.config import Instance
from atoll.errors import InvalidInput, Unavailable
from atoll.images import ImageStore
from image_harness import make_image, tar_of

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # daemons outlive who started them


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def there(instance: Instance) -> Iterator[Instance]:
    """An instance with a cluster's directory."""
    instance.cluster.mkdir(parents=True)
    yield instance
    addons.suspend(instance, lambda _: None)


def test_enable_push_suspend_resume_disable(there: Instance):
    said: list[str] = []
    address = free_address()
    addons.enable_registry(there, address, said.append)
    addons.enable_registry(there, address, said.append)  # again is no error
    assert said == [f"Starting the registry at {address}"]

    async def push_and_pull() -> None:
        store = ImageStore(there)
        store.open()
        image = await make_image(store, f"{address}/app:1", tar_of(("f", b"content")))
        await store.push(f"{address}/app:1")
        await store.remove(f"{address}/app:1")
        assert (await store.pull(f"{address}/app:1")).id == image.id
        store.close()

    asyncio.run(push_and_pull())
    addons.suspend(there, said.append)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 1)
    addons.resume(there, said.append)
    socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 1).close()
    addons.disable_registry(there, said.append)
    addons.resume(there, said.append)
    assert said[1:] == ["Stopping the registry", f"Starting the registry at {address}", "Stopping the registry"]


@pytest.mark.parametrize("address", ["0.0.0.0:5000", "5000", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:70000", "example.org:5000"])
def test_it_listens_on_this_machine_alone(there: Instance, address: str):
    with pytest.raises(InvalidInput, match="listens on this machine alone"):
        addons.enable_registry(there, address, lambda _: None)


def test_a_port_that_is_taken(there: Instance):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable, match="in use"):
            addons.enable_registry(there, f"127.0.0.1:{taken.getsockname()[1]}", lambda _: None)
