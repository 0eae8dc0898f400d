"""The spec of a Docker-like container, option by option."""

from __future__ import annotations

import pytest

from atoll.errors import InvalidInput
from atoll.runtime import mount_options
from atoll.runtime.devices import host_devices
from atoll.runtime.spec import DEFAULT_CAPABILITIES, capability_set, default_spec, exec_process, merge_env


def test_capability_set():
    assert capability_set((), ()) == sorted(DEFAULT_CAPABILITIES)
    assert "CAP_NET_ADMIN" in capability_set(["net_admin"], ["KILL"])
    assert "CAP_KILL" not in capability_set(["net_admin"], ["KILL"])
    assert capability_set(["CHOWN"], ["ALL"]) == ["CAP_CHOWN"]
    assert capability_set([], ["all"]) == []
    assert "CAP_SYS_ADMIN" in capability_set(["ALL"], ["CHOWN"])
    assert "CAP_CHOWN" not in capability_set(["ALL"], ["CHOWN"])
    with pytest.raises(InvalidInput):
        capability_set(["NOPE"], [])


def test_a_mount_replaces_the_default_one():
    mine = {"destination": "/dev/shm/", "type": "bind", "source": "/x", "options": ["rbind"]}
    spec = default_spec(args=["x"], mounts=[mine], tmpfs={"/run": "size=1m,exec"})
    shm = [mount for mount in spec["mounts"] if mount["destination"].startswith("/dev/shm")]
    assert shm == [mine]
    assert {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "nodev", "size=1m", "exec"]} in spec[
        "mounts"
    ]


def test_shallow_mounts_come_first():
    spec = default_spec(args=["x"], mounts=[{"destination": "/a/b/c", "source": "/x"}, {"destination": "/a", "source": "/y"}])
    assert [mount["destination"] for mount in spec["mounts"]][-2:] == ["/a", "/a/b/c"]


def test_privileged_has_no_masks_and_no_filter():
    linux = default_spec(args=["x"], privileged=True)["linux"]
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []
    assert "seccomp" not in linux
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert any(device["path"] == "/dev/null" for device in linux["devices"])


def test_host_namespaces_take_no_names_and_sysctls():
    spec = default_spec(args=["x"], hostname="h", namespaces={"mount": None, "pid": None})
    assert "hostname" not in spec
    assert spec["linux"]["sysctl"] == {}


def test_exec_process():
    spec = default_spec(args=["x"], env=["A=1", "B=2"], user="app", cwd="/w", terminal=True, console_size=(1, 2))
    process = exec_process(spec, args=["y"], env=["B=3", "A"])
    assert (process["args"], process["env"], process["cwd"], process["terminal"]) == (["y"], ["B=3"], "/w", False)
    assert process["user"]["username"] == "app"
    assert "consoleSize" not in process
    assert exec_process(spec, args=["y"], user="0")["user"]["username"] == "0"


def test_merge_env():
    assert merge_env(["A=1", "B=2"], ["B=3", "C="]) == ["A=1", "B=3", "C="]


def test_mount_options():
    options = mount_options.parse(["rbind", "ro", "rw", "nosuid", "rslave", "rro", "size=5m", "noatime", "mode=755", "x-flag", "defaults"])
    assert (options.bind, options.recursive) == (True, True)
    assert options.add == mount_options.mounts.ATTR_NOSUID | mount_options.mounts.ATTR_NOATIME
    assert options.remove == mount_options.mounts.ATTR_RDONLY
    assert options.recursive_add == mount_options.mounts.ATTR_RDONLY
    assert options.propagation == ((mount_options.mounts.MS_SLAVE, True),)
    assert options.parameters == (("size", "5m"), ("mode", "755"), ("x-flag", None))


def test_host_devices():
    (device,) = host_devices("/dev/null", "/dev/other", "r")
    assert (device.path, device.type, device.major, device.minor, device.permissions) == ("/dev/other", "c", 1, 3, "r")
    with pytest.raises(InvalidInput, match="not a device node"):
        host_devices("/etc/passwd", "/dev/x")
    with pytest.raises(InvalidInput, match="invalid device mode"):
        host_devices("/dev/null", "/dev/x", "q")
