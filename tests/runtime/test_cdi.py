"""CDI files into OCI configs."""

from __future__ import annotations

import contextlib
import copy
import json
import os

import pytest

from atoll.errors import InvalidInput, NotSupported
from atoll.runtime import default_spec
from atoll.runtime.cdi import Catalogue, is_qualified

GPU = {
    "cdiVersion": "0.6.0",
    "kind": "vendor.com/gpu",
    "annotations": {"org.example": "ignored"},
    "containerEdits": {
        "env": ["DRIVER=9", "PATH=/vendor/bin"],
        "mounts": [{"hostPath": "/usr/lib/vendor", "containerPath": "/usr/lib/vendor", "options": ["ro", "nosuid", "nodev", "bind"]}],
        "hooks": [{"hookName": "createContainer", "path": "/usr/bin/vendor", "args": ["vendor", "ldconfig"], "env": ["A=1"], "timeout": 5}],
    },
    "devices": [
        {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/zero"}], "env": ["ORDINAL=0"]}},
        {
            "name": "10",
            "containerEdits": {"deviceNodes": [{"path": "/dev/gpu10", "type": "c", "major": 1, "minor": 7, "permissions": "r"}]},
        },
        {
            "name": "2",
            "containerEdits": {"deviceNodes": [{"path": "/dev/gpu2", "hostPath": "/dev/full", "fileMode": 0o640, "uid": 5, "gid": 6}]},
        },
    ],
}


def catalogue(tmp_path, *specs, directory="a"):
    (tmp_path / directory).mkdir(exist_ok=True)
    for number, spec in enumerate(specs):
        text = spec if isinstance(spec, str) else json.dumps(spec)
        (tmp_path / directory / f"{number}.{'yaml' if isinstance(spec, str) else 'json'}").write_text(text)
    return Catalogue.read((str(tmp_path / "a"), str(tmp_path / "b")))


def test_edits_of_the_file_come_once_and_before_the_devices(tmp_path):
    config = default_spec(args=["true"], env=["PATH=/bin", "B=2"])
    catalogue(tmp_path, GPU).apply(config, ["vendor.com/gpu=0", "vendor.com/gpu=2", "vendor.com/gpu=0"])
    assert config["process"]["env"] == ["PATH=/vendor/bin", "B=2", "DRIVER=9", "ORDINAL=0"]
    assert config["mounts"][-1] == {
        "destination": "/usr/lib/vendor",
        "type": "bind",
        "source": "/usr/lib/vendor",
        "options": ["ro", "nosuid", "nodev", "bind"],
    }
    assert config["hooks"] == {
        "createContainer": [{"path": "/usr/bin/vendor", "args": ["vendor", "ldconfig"], "env": ["A=1"], "timeout": 5}]
    }
    assert config["linux"]["devices"] == [
        {"path": "/dev/gpu0", "type": "c", "major": 1, "minor": 5, "uid": 0, "gid": 0, "fileMode": os.stat("/dev/zero").st_mode & 0o7777},
        {"path": "/dev/gpu2", "type": "c", "major": 1, "minor": 7, "uid": 5, "gid": 6, "fileMode": 0o640},
    ]
    assert config["linux"]["resources"]["devices"][-2:] == [
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 7, "access": "rwm"},
    ]


def test_a_node_with_numbers_needs_no_host(tmp_path):
    config = default_spec(args=["true"], user="1000:1001")
    catalogue(tmp_path, GPU).apply(config, ["vendor.com/gpu=10"])
    assert config["linux"]["devices"] == [{"path": "/dev/gpu10", "type": "c", "major": 1, "minor": 7, "uid": 1000, "gid": 1001}]
    assert config["linux"]["resources"]["devices"][-1]["access"] == "r"


def test_groups(tmp_path):
    spec = {**GPU, "containerEdits": {"additionalGids": [0, 44, 44]}}
    found = catalogue(tmp_path, spec)
    config = default_spec(args=["true"], user="app", group_add=["7"])
    found.apply(config, ["vendor.com/gpu=10"])
    assert config["process"]["user"]["additionalGroups"] == ["7", "44"]
    config["process"]["user"] = {"uid": 1, "gid": 2, "additionalGids": [3]}
    found.apply(config, ["vendor.com/gpu=10"])
    assert config["process"]["user"]["additionalGids"] == [3, 44]


def test_yaml_and_order(tmp_path):
    yaml = """
cdiVersion: "1.1.0"
kind: acme.org/net
devices:
- name: eth
  containerEdits:
    netDevices: [{hostInterfaceName: eth9, name: eth0}]
- name: plain
  containerEdits:
    env: ["X=1"]
    intelRdt: {closID: "", enableMonitoring: true}
"""
    found = catalogue(tmp_path, GPU, yaml)
    assert found.problems == ()
    assert found.of_kind("vendor.com/gpu") == ["0", "2", "10"]
    config = default_spec(args=["true"])
    found.apply(config, ["acme.org/net=plain"])
    assert config["linux"]["intelRdt"] == {"enableMonitoring": True}
    with pytest.raises(NotSupported, match="netDevices"):
        found.apply(config, ["acme.org/net=eth"])


def test_the_later_directory_wins_and_twice_in_one_is_nobodys(tmp_path):
    other = copy.deepcopy(GPU)
    other["devices"] = [{"name": "0", "containerEdits": {"env": ["FROM=b"]}}]
    catalogue(tmp_path, other, directory="b")
    found = catalogue(tmp_path, GPU)
    config = default_spec(args=["true"])
    found.apply(config, ["vendor.com/gpu=0"])
    assert "FROM=b" in config["process"]["env"]
    (tmp_path / "b" / "1.json").write_text(json.dumps(other))
    found = catalogue(tmp_path)
    assert "vendor.com/gpu=0" not in found.devices
    with pytest.raises(InvalidInput, match=r"vendor\.com/gpu=0 is described twice in"):
        found.apply(config, ["vendor.com/gpu=0"])


def test_an_unknown_device_names_those_that_are_there(tmp_path):
    with pytest.raises(InvalidInput) as caught:
        catalogue(tmp_path, GPU, "{").apply(default_spec(args=["true"]), ["vendor.com/gpu=0", "vendor.com/gpu=9", "no.such/thing=x"])
    message = str(caught.value)
    assert message.startswith("CDI device injection failed: unresolvable CDI devices vendor.com/gpu=9, no.such/thing=x: there is")
    assert "vendor.com/gpu=10, vendor.com/gpu=2" in message
    assert "1.yaml" in message
    with pytest.raises(InvalidInput, match=r"no device is described in .*/a or .*/b"):
        Catalogue.read((str(tmp_path / "no/a"), str(tmp_path / "no/b"))).apply({}, ["x.y/z=1"])


def test_a_node_whose_driver_is_not_loaded(tmp_path):
    spec = copy.deepcopy(GPU)
    spec["devices"][0]["containerEdits"]["deviceNodes"] = [{"path": "/dev/no-such-gpu"}]
    spec["devices"][1]["containerEdits"]["deviceNodes"] = [{"path": "/dev/x", "hostPath": "/etc/passwd"}]
    found = catalogue(tmp_path, spec)
    with pytest.raises(InvalidInput, match="/dev/no-such-gpu cannot be looked at: No such file or directory: is its driver loaded"):
        found.apply(default_spec(args=["true"]), ["vendor.com/gpu=0"])
    with pytest.raises(InvalidInput, match="/etc/passwd is not a device node"):
        found.apply(default_spec(args=["true"]), ["vendor.com/gpu=10"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cdiVersion": "1.2.0"}, "cdiVersion '1.2.0' is not known"),
        ({"cdiVersion": None}, "cdiVersion None"),
        ({"kind": "nokind"}, "must be vendor/class"),
        ({"kind": 5}, "must be vendor/class"),
        ({"devices": []}, "describes no device"),
        ({"devices": "x"}, "must be a list"),
        ({"devices": [{"name": "-x"}]}, "device name '-x'"),
        ({"devices": [{"name": "x"}, {"name": "x"}]}, "described twice"),
        ({"containerEdits": []}, "must be an object"),
        ({"containerEdits": {"env": ["NOVALUE"]}}, "must be NAME=value"),
        ({"containerEdits": {"deviceNodes": [{"path": "rel"}]}}, "absolute path"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "type": "z"}]}}, "absolute path"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "permissions": "rx"}]}}, "r, w and m"),
        ({"containerEdits": {"mounts": [{"containerPath": "/x"}]}}, "hostPath"),
        ({"containerEdits": {"hooks": [{"hookName": "never", "path": "/x"}]}}, "hookName"),
        ({"containerEdits": {"additionalGids": ["x"]}}, "must be a number"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "major": "1"}]}}, "major of /x must be a number"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "hostPath": 5}]}}, "hostPath of /x"),
        ({"containerEdits": {"mounts": [{"hostPath": "/x", "containerPath": "/x", "options": "ro"}]}}, "list of strings"),
        ({"containerEdits": {"hooks": [{"hookName": "prestart", "path": "/x", "args": [1]}]}}, "lists of strings"),
        ({"containerEdits": {"intelRdt": 5}}, "intelRdt must be an object"),
    ],
)
def test_files_that_are_none_are_passed_over_and_named(tmp_path, change, message):
    found = catalogue(tmp_path, {**GPU, **change})
    assert found.devices == {}
    assert message in found.problems[0]
    assert "0.json" in found.problems[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nvidia.com/gpu=0", True),
        ("vendor/class=all", True),
        ("/dev/zero", False),
        ("a/b=", False),
        ("a/b", False),
        ("/dev/x:/dev/y=r", False),
    ],
)
def test_qualified_names(text, expected):
    assert is_qualified(text) is expected


JUNK = (None, 0, -1, 1 << 70, "", "x", [], [1], ["x"], {}, {"x": 1}, True, 1.5)


def test_no_junk_breaks_it(tmp_path):
    """Whatever stands in a field: the file is passed over and named, or the device can be given or is refused, by an error of ours."""
    fields = {
        "": ("cdiVersion", "kind", "devices", "containerEdits"),
        "containerEdits": ("env", "deviceNodes", "mounts", "hooks", "additionalGids", "intelRdt", "netDevices"),
        "deviceNodes": ("path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid"),
        "mounts": ("hostPath", "containerPath", "options", "type"),
        "hooks": ("hookName", "path", "args", "env", "timeout"),
    }
    base = {
        "deviceNodes": {"path": "/dev/zero"},
        "mounts": {"hostPath": "/x", "containerPath": "/x"},
        "hooks": {"hookName": "prestart", "path": "/x"},
    }
    for section, names in fields.items():
        for name in names:
            for junk in JUNK:
                spec = copy.deepcopy(GPU)
                if section == "":
                    spec[name] = junk
                elif section == "containerEdits":
                    spec["containerEdits"][name] = junk
                else:
                    spec["containerEdits"][section] = [{**base[section], name: junk}]
                found = catalogue(tmp_path, spec)
                assert found.problems or found.devices
                with contextlib.suppress(InvalidInput, NotSupported):
                    found.apply(default_spec(args=["true"]), ["vendor.com/gpu=10"])
