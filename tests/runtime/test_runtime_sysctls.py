"""Kernel settings: a container's own namespaces only, never the machine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.errors import InvalidInput
from atoll.runtime import sysctls
from atoll.runtime.spec import PRIVATE_NAMESPACES

OWN = [{"type": kind} for kind in PRIVATE_NAMESPACES]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
    ],
)
def test_path(key, path):
    assert sysctls.path(key) == path


@pytest.mark.parametrize("key", ["net.ipv4.ip_forward", "net/core/somaxconn", "kernel.shmmax", "fs.mqueue.msg_max", "kernel.domainname"])
def test_what_a_namespace_keeps(key):
    sysctls.check({key: "1"}, OWN)
    with pytest.raises(InvalidInput, match="not allowed in host"):
        sysctls.check({key: "1"}, [{"type": "mount"}])


@pytest.mark.parametrize("key", ["kernel.panic_on_oops", "kernel.core_pattern", "fs.aio-max-nr", "vm.swappiness", "kernel.hostname", ""])
def test_what_is_the_machines(key):
    with pytest.raises(InvalidInput):
        sysctls.check({key: "1"}, OWN)


@pytest.mark.parametrize("key", ["net/../kernel/panic_on_oops", "net.//.kernel.panic_on_oops", "net//x", "net/./x", "/net/x"])
def test_no_way_around(key):
    with pytest.raises(InvalidInput, match=r"invalid sysctl|not in a separate"):
        sysctls.check({key: "1"}, OWN)


def test_the_hosts_namespace_by_path():
    with pytest.raises(InvalidInput, match="host network"):
        sysctls.check({"net.ipv4.ip_forward": "1"}, [{"type": "network", "path": "/proc/self/ns/net"}])


def test_nothing_of_the_host_changes(box):
    setting = Path("/proc/sys/fs/aio-max-nr")
    before = setting.read_text()

    async def body(box):
        name = box.bundle(["true"], sysctls={"fs.aio-max-nr": str(int(before) + 1)})
        with pytest.raises(InvalidInput, match="separate kernel namespace"):
            await box.start(name)
        assert await box.runtime.list() == []

    box(body)
    assert setting.read_text() == before
