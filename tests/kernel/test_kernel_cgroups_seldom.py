"""Block I/O, huge pages, network classes and RDMA, in trees of files."""

from __future__ import annotations

import pytest

from atoll.errors import NotSupported
from atoll.kernel.cgroups import Cgroup, Layout, seldom, v1, v2

RESOURCES = {
    "blockIO": {
        "weight": 500,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 100}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 20}],
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
    "network": {"classID": 5, "priorities": [{"name": "eth0", "priority": 3}]},
    "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}},
}


def tree(tmp_path, *names):
    for name in names:
        (tmp_path / name).touch()
    return str(tmp_path)


def test_version_1(tmp_path):
    directory = tree(
        tmp_path,
        *("blkio.bfq.weight", "blkio.bfq.weight_device", "blkio.throttle.read_bps_device", "blkio.throttle.write_iops_device"),
        *("hugetlb.2MB.limit_in_bytes", "net_cls.classid", "net_prio.ifpriomap", "rdma.max"),
    )
    v1.apply(dict.fromkeys(("blkio", "hugetlb", "net_cls", "net_prio", "rdma"), directory), RESOURCES)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "blkio.bfq.weight": "500",
        "blkio.bfq.weight_device": "8:0 100",
        "blkio.throttle.read_bps_device": "8:0 1000",
        "blkio.throttle.write_iops_device": "8:16 20",
        "hugetlb.2MB.limit_in_bytes": "4194304",
        "net_cls.classid": "5",
        "net_prio.ifpriomap": "eth0 3",
        "rdma.max": "mlx5_1 hca_handle=3 hca_object=10",
    }


def test_version_2(tmp_path):
    directory = tree(tmp_path, "io.weight", "io.max", "hugetlb.2MB.max", "rdma.max")
    resources = {**RESOURCES, "blockIO": {"weight": 1000, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}]}}
    v2.apply(directory, ("io", "hugetlb", "rdma"), resources)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "io.weight": "10000",
        "io.max": "8:0 rbps=1000",
        "hugetlb.2MB.max": "4194304",
        "rdma.max": "mlx5_1 hca_handle=3 hca_object=10",
    }


def test_a_limit_that_cannot_be_kept_is_refused_and_a_weight_is_not(tmp_path):
    directory = tree(tmp_path)
    seldom.apply_v1({"blkio": directory}, {"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 100}]}})
    with pytest.raises(NotSupported, match=r"blkio\.throttle\.read_bps_device"):
        seldom.apply_v1({"blkio": directory}, RESOURCES)
    with pytest.raises(NotSupported, match=r"hugetlb\.2MB\.max"):
        seldom.apply_v2(directory, ("hugetlb",), RESOURCES)
    with pytest.raises(NotSupported, match=r"net_cls\.classid"):
        seldom.apply_v1({}, RESOURCES)


def test_unified_resources_need_a_unified_hierarchy(tmp_path):
    layout = Layout({"memory": str(tmp_path)}, (), "", frozenset())
    with pytest.raises(NotSupported, match="no unified hierarchy"):
        Cgroup(layout, "/x").create({"unified": {"memory.high": "1"}})
    assert list(tmp_path.iterdir()) == []
