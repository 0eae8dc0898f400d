import pytest

from atoll.cli.containerbody import body
from atoll.cli.containerflags import CREATE_FLAGS
from atoll.cli.devicewords import gpus
from atoll.cli.flags import Command, Flag, UsageError, check_arguments, parse, usage
from atoll.cli.networkwords import parse_publish


def command(**kwargs):
    flags = (Flag("all", "a"), Flag("name", "n", "string"), Flag("env", "e", "list"), Flag("last", "l", "int"))
    return Command(lambda _o, _a: 0, "[OPTIONS] IMAGE", "Do it", flags, **kwargs)


def test_every_form_of_a_flag():
    options, arguments = parse(command(), ["-an", "x", "--env=A=1", "-eB=2", "--last", "3", "img", "--", "-a"])
    assert options["all"] is True
    assert options["name"] == "x"
    assert options["env"] == ["A=1", "B=2"]
    assert options["last"] == 3
    assert arguments == ["img", "-a"]


def test_flags_after_the_image_belong_to_the_program():
    options, arguments = parse(command(interspersed=False), ["-a", "img", "--name", "x"])
    assert options["name"] is None
    assert arguments == ["img", "--name", "x"]


def test_joined_shorts_with_a_false_value():
    options, _ = parse(command(), ["-a=false"])
    assert options["all"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bogus"], "unknown flag: --bogus"),
        (["-az"], "unknown shorthand flag: 'z' in -az"),
        (["--name"], "flag needs an argument: --name"),
        (["-l", "x"], 'invalid argument "x" for "--last" flag'),
        (["--all=perhaps"], 'invalid argument "perhaps" for "--all" flag'),
    ],
)
def test_wrong_flags_are_named(words, message):
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        parse(command(), words)


@pytest.mark.parametrize(
    ("limits", "given", "message"),
    [
        ({"minimum": 1, "maximum": 1}, [], "'atoll x' requires 1 argument"),
        ({"minimum": 2}, ["a"], "'atoll x' requires at least 2 arguments"),
        ({"maximum": 0}, ["a"], "'atoll x' accepts no arguments"),
        ({"maximum": 1}, ["a", "b"], "'atoll x' requires at most 1 argument"),
    ],
)
def test_counts_of_arguments(limits, given, message):
    with pytest.raises(UsageError, match=message):
        check_arguments(command(**limits), given, "atoll x")


def test_help_lists_every_flag_aligned():
    lines = usage(command(), "atoll x").splitlines()
    assert lines[0] == "Usage:  atoll x [OPTIONS] IMAGE"
    assert "  -a, --all" in lines
    assert "  -e, --env list" in lines


@pytest.mark.parametrize(
    ("word", "pairs"),
    [
        ("80", [("80/tcp", "", "")]),
        ("8080:80", [("80/tcp", "", "8080")]),
        ("127.0.0.1:8080:80/udp", [("80/udp", "127.0.0.1", "8080")]),
        ("[::1]:8080:80", [("80/tcp", "::1", "8080")]),
        ("8000-8001:80-81", [("80/tcp", "", "8000"), ("81/tcp", "", "8001")]),
        ("8000-8010:80", [("80/tcp", "", "8000-8010")]),
        ("127.0.0.1::80", [("80/tcp", "127.0.0.1", "")]),
    ],
)
def test_publish(word, pairs):
    assert [(port, binding["HostIp"], binding["HostPort"]) for port, binding in parse_publish(word)] == pairs


@pytest.mark.parametrize("word", ["", "x:80", "80:70000", "1.2.3:80:80", "80/icmp", "8000-8001:80-82", "0:80"])
def test_publish_refuses(word):
    with pytest.raises(UsageError):
        list(parse_publish(word))


def create(words):
    run = Command(lambda _o, _a: 0, "", "", CREATE_FLAGS, interspersed=False)
    options, arguments = parse(run, words)
    return body(options, arguments[0], arguments[1:])


def test_body_of_a_full_command_line(monkeypatch, tmp_path):
    monkeypatch.setenv("FROM_HERE", "yes")
    file = tmp_path / "env"
    file.write_text("# comment\nA=1\n\nFROM_HERE\n")
    request = create(
        [
            "-it",
            *("-v", "/data:/data:ro", "-v", "/cache", "-e", "B=2", "--env-file", str(file)),
            *("-p", "8080:80", "-m", "64m", "--cpus", "0.5", "--restart", "on-failure:3", "--network", "net1"),
            *("--ulimit", "nofile=10:20", "--mount", "type=bind,src=/x,dst=/y,readonly", "--entrypoint", "/bin/e"),
            *("debian", "bash", "-c", "x"),
        ]
    )
    host = request["HostConfig"]
    assert request["Cmd"] == ["bash", "-c", "x"]
    assert request["Entrypoint"] == ["/bin/e"]
    assert request["Env"] == ["A=1", "FROM_HERE=yes", "B=2"]
    assert request["Volumes"] == {"/cache": {}}
    assert request["StdinOnce"]
    assert host["Binds"] == ["/data:/data:ro"]
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    assert host["Memory"] == 64 << 20
    assert host["NanoCpus"] == 500_000_000
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["NetworkMode"] == "net1"
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert host["Mounts"] == [{"Type": "bind", "Source": "/x", "Target": "/y", "ReadOnly": True}]


def test_networks_in_the_long_form():
    request = create(
        [
            *("--network", "name=web,alias=front,alias=www,ip=10.9.0.5,mac-address=02:00:00:00:00:07,driver-opt=a=b,gw-priority=-3"),
            *("--network", "back", "--link", "db:database", "-p", "target=80,published=8080,protocol=udp", "i"),
        ]
    )
    assert request["HostConfig"]["NetworkMode"] == "web"
    assert request["NetworkingConfig"]["EndpointsConfig"] == {
        "web": {
            "Aliases": ["front", "www"],
            "IPAMConfig": {"IPv4Address": "10.9.0.5"},
            "MacAddress": "02:00:00:00:00:07",
            "DriverOpts": {"a": "b"},
            "GwPriority": -3,
            "Links": ["db:database"],
        },
        "back": {},
    }
    assert request["HostConfig"]["PortBindings"] == {"80/udp": [{"HostIp": "", "HostPort": "8080"}]}


def test_limits_of_devices_and_rare_flags():
    host = create(
        [
            *("--device-read-bps", "/dev/sda:1mb", "--device-write-iops", "/dev/sda:100", "--blkio-weight-device", "/dev/sda:300"),
            *("--blkio-weight", "500", "--device", "vendor.com/gpu=0", "--device", "vendor.com/gpu=1", "--device", "/dev/fuse:/dev/x:r"),
            *("--gpus", '"device=0,1",capabilities=utility', "--memory-swappiness", "7", "--cgroup-parent", "/p", "--dns-opt", "ndots:2"),
            *("--storage-opt", "size=1g", "--device-cgroup-rule", "c 1:3 rwm", "--init=false", "i"),
        ]
    )["HostConfig"]
    assert host["BlkioDeviceReadBps"] == [{"Path": "/dev/sda", "Rate": 1 << 20}]
    assert host["BlkioDeviceWriteIOps"] == [{"Path": "/dev/sda", "Rate": 100}]
    assert (host["BlkioWeightDevice"], host["BlkioWeight"]) == ([{"Path": "/dev/sda", "Weight": 300}], 500)
    assert host["Devices"] == [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]
    assert host["DeviceRequests"][0] == {"Driver": "cdi", "DeviceIDs": ["vendor.com/gpu=0", "vendor.com/gpu=1"]}
    assert host["DeviceRequests"][1]["DeviceIDs"] == ["0", "1"]
    assert host["DeviceRequests"][1]["Capabilities"] == [["gpu", "utility"]]
    assert (host["MemorySwappiness"], host["CgroupParent"], host["DnsOptions"]) == (7, "/p", ["ndots:2"])
    assert (host["StorageOpt"], host["DeviceCgroupRules"], host["Init"]) == ({"size": "1g"}, ["c 1:3 rwm"], False)


@pytest.mark.parametrize(("word", "count"), [("all", -1), ("2", 2), ("driver=nvidia", 1), ("device=0", 0)])
def test_gpus(word, count):
    assert gpus(word)["Count"] == count


def test_mounts_of_every_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    host = create(
        [
            *("-v", "./here:/there:ro", "-v", "named:/named", "--volume-driver", "local", "--tmpfs", "/run:size=1m"),
            *("--mount", "type=bind,src=.,dst=/y,bind-propagation=rshared,bind-recursive=disabled"),
            *("--mount", "src=data,dst=/d,volume-subpath=a/b,volume-nocopy,volume-opt=type=tmpfs,volume-label=k=v"),
            *("--mount", "type=tmpfs,dst=/t,tmpfs-size=2m,tmpfs-mode=1770", "--mount", "type=image,src=busybox,dst=/i,image-subpath=bin"),
            *("--mount", '"type=bind","src=/a,b",dst=/c', "i"),
        ]
    )["HostConfig"]
    assert host["Binds"] == [f"{tmp_path}/here:/there:ro", "named:/named"]
    assert (host["VolumeDriver"], host["Tmpfs"]) == ("local", {"/run": "size=1m"})
    assert host["Mounts"] == [
        {"Type": "bind", "Source": str(tmp_path), "Target": "/y", "BindOptions": {"Propagation": "rshared", "NonRecursive": True}},
        {
            "Type": "volume",
            "Source": "data",
            "Target": "/d",
            "VolumeOptions": {"Subpath": "a/b", "NoCopy": True, "DriverConfig": {"Options": {"type": "tmpfs"}}, "Labels": {"k": "v"}},
        },
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 2 << 20, "Mode": 0o1770}},
        {"Type": "image", "Source": "busybox", "Target": "/i", "ImageOptions": {"Subpath": "bin"}},
        {"Type": "bind", "Source": "/a,b", "Target": "/c"},
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["--gpus", "count=many", "i"],
        ["--gpus", "bogus=1", "i"],
        ["--device-read-bps", "sda:1mb", "i"],
        ["--device-write-iops", "/dev/sda:1mb", "i"],
        ["--network", "alias=x", "i"],
        ["--network", "name=x,bogus=1", "i"],
        ["--network", "name=x,ip=10.0.0.1", "--ip", "10.0.0.2", "i"],
        ["--mount", "type=tmpfs,dst=/t,volume-nocopy", "i"],
        ["--mount", "type=bind,src=/x,dst=/t,readonly=perhaps", "i"],
        ["--mount", "type=bind,src=/x,dst=/t,bind-recursive=perhaps", "i"],
        ["--mount", "type=tmpfs,dst=/t,tmpfs-mode=9", "i"],
        ["--no-healthcheck", "--health-cmd", "true", "i"],
        ["--health-interval", "often", "i"],
        ["--expose", "80/icmp", "i"],
        ["-p", "target=80,bogus=1", "i"],
        ["--cpus", "many", "i"],
        ["-m", "x", "i"],
        ["--mount", "type=bind", "i"],
        ["--mount", "bogus=1,dst=/x", "i"],
        ["--ulimit", "nofile", "i"],
        ["--restart", "always:3", "i"],
        ["--env-file", "/nonexistent", "i"],
        ["-e", "=x", "i"],
        ["-a", "stdfoo", "i"],
    ],
)
def test_wrong_values_are_usage_errors(words):
    with pytest.raises(UsageError):
        create(words)
