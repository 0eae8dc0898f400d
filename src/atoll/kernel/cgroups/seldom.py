"""Limits that few containers have: block I/O, huge pages, network classes, RDMA. Loaded by the first that asks.

The names are OCI's (`linux.resources`). A limit for which this machine has no control file is refused; a weight is not, since it
only matters beside others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from atoll.errors import NotSupported
from atoll.kernel.cgroups import files

# OCI's field to v1's file and v2's key of io.max.
_THROTTLES = {
    "throttleReadBpsDevice": ("blkio.throttle.read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("blkio.throttle.write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("blkio.throttle.read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("blkio.throttle.write_iops_device", "wiops"),
}
_WEIGHTS_V1 = ("blkio.weight", "blkio.bfq.weight")
_WEIGHTS_OF_DEVICES_V1 = ("blkio.weight_device", "blkio.bfq.weight_device")


def apply_v1(at: Mapping[str, str], resources: Mapping[str, Any]) -> None:
    """Write what is present, for the controllers in `at`. Raises SystemFailure, NotSupported."""
    if "blkio" in at:
        block = resources.get("blockIO") or {}
        for number, name in enumerate(_WEIGHTS_V1):
            if block.get("weight") and files.exists(at["blkio"], name):
                files.write(at["blkio"], name, block["weight"])
            for device in block.get("weightDevice") or ():
                if device.get("weight") and files.exists(at["blkio"], _WEIGHTS_OF_DEVICES_V1[number]):
                    files.write(at["blkio"], _WEIGHTS_OF_DEVICES_V1[number], f"{_number(device)} {device['weight']}")
        for field, (name, _) in _THROTTLES.items():
            for device in block.get(field) or ():
                _write(at["blkio"], name, f"{_number(device)} {device['rate']}")
    if "hugetlb" in at:
        for limit in resources.get("hugepageLimits") or ():
            _write(at["hugetlb"], f"hugetlb.{limit['pageSize']}.limit_in_bytes", limit["limit"])
    network = resources.get("network") or {}
    if network.get("classID"):
        _write(at.get("net_cls", ""), "net_cls.classid", network["classID"])
    for interface in network.get("priorities") or ():
        _write(at.get("net_prio", ""), "net_prio.ifpriomap", f"{interface['name']} {interface['priority']}")
    if "rdma" in at:
        _rdma(at["rdma"], resources)


def apply_v2(directory: str, controllers: Iterable[str], resources: Mapping[str, Any]) -> None:
    """The same for the `controllers` of the unified hierarchy."""
    here = frozenset(controllers)
    if "io" in here:
        _io(directory, resources.get("blockIO") or {})
    if "hugetlb" in here:
        for limit in resources.get("hugepageLimits") or ():
            _write(directory, f"hugetlb.{limit['pageSize']}.max", limit["limit"])
    if "rdma" in here:
        _rdma(directory, resources)


def weight_of_blkio(weight: int) -> int:
    """v1's 10..1000 to v2's 1..10000."""
    return 1 + (weight - 10) * 9_999 // 990


def _io(directory: str, block: Mapping[str, Any]) -> None:
    name = "io.bfq.weight" if files.exists(directory, "io.bfq.weight") else "io.weight"
    own_scale = (lambda weight: weight) if name == "io.bfq.weight" else weight_of_blkio  # BFQ has v1's
    if files.exists(directory, name):
        if block.get("weight"):
            files.write(directory, name, own_scale(block["weight"]))
        for device in block.get("weightDevice") or ():
            if device.get("weight"):
                files.write(directory, name, f"{_number(device)} {own_scale(device['weight'])}")
    for field, (_, key) in _THROTTLES.items():
        for device in block.get(field) or ():
            _write(directory, "io.max", f"{_number(device)} {key}={device['rate'] or 'max'}")


def _rdma(directory: str, resources: Mapping[str, Any]) -> None:
    for device, limit in (resources.get("rdma") or {}).items():
        words = [f"{key}={limit[name]}" for name, key in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")) if name in limit]
        _write(directory, "rdma.max", " ".join([device, *words]))


def _write(directory: str, name: str, value: str | int) -> None:
    if not directory or not files.exists(directory, name):
        raise NotSupported(
            f"a limit by {name} was asked for, which this machine's {os.path.basename(os.path.dirname(directory))} cgroup has not"
        )
    files.write(directory, name, value)


def _number(device: Mapping[str, Any]) -> str:
    return f"{device['major']}:{device['minor']}"
