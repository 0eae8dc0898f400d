"""The pure parts: what clients write, read into values."""

import pytest

from atoll.engine.containers import restart, userns
from atoll.engine.containers.bundle import check_shared, oci_mount
from atoll.engine.containers.config import container_config, host_config, parse_port
from atoll.engine.containers.create import adopt, merge_health
from atoll.engine.containers.listing import human_duration, shlex_join
from atoll.engine.containers.mounts import MountPoint, parse_bind, parse_mount, plan
from atoll.engine.containers.record import Record, Status
from atoll.engine.containers.signals import parse_signal
from atoll.engine.containers.top import parse
from atoll.engine.credentials import decode, registry_key
from atoll.engine.filters import Filters
from atoll.engine.instructions import apply_changes
from atoll.engine.names import check_name, random_name
from atoll.engine.platforms import platform_of
from atoll.engine.streams import DetachKeys, frame, parse_keys
from atoll.engine.times import parse_moment
from atoll.errors import InvalidInput, NotSupported
from atoll.images import Platform

S = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("5", 5 * S),
        ("5.25", 5 * S + S // 4),
        ("5.000000001", 5 * S + 1),
        ("1970-01-01T00:00:07Z", 7 * S),
        ("1970-01-01T01:00:07.5+01:00", 7 * S + S // 2),
        ("1970-01-01", 0),
        ("1970-01-01T00:00", 0),
        ("10s", 90 * S),
        ("1m", 40 * S),
    ],
)
def test_moments(text, moment):
    assert parse_moment(text, now_ns=100 * S) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "1970-13-01", "9" * 40, "１２"])
def test_what_is_no_moment(text):
    with pytest.raises(InvalidInput):
        parse_moment(text)


def test_filters_in_both_forms():
    for text in ('{"label":["a=1","b"]}', '{"label":{"a=1":true,"b":true,"c":false}}'):
        filters = Filters.parse(text, ["label"])
        assert filters.get("label") == ("a=1", "b")
        assert filters.labels({"a": "1", "b": "x"})
        assert not filters.labels({"a": "2", "b": "x"})


@pytest.mark.parametrize("text", ["x", "[]", '{"label":3}', '{"label":[1]}', '{"other":["x"]}', "[" * 100_000])
def test_bad_filters_are_the_clients_fault(text):
    with pytest.raises(InvalidInput):
        Filters.parse(text, ["label"])


def test_a_filter_pattern_cannot_run_away():
    assert Filters({"name": ["^we.$"]}).pattern("name", "web")
    assert not Filters({"name": ["(a+)+$"]}).pattern("name", "a" * 200 + "!")
    assert not Filters({"name": ["("]}).pattern("name", "web")


def test_detach_keys():
    keys = DetachKeys()
    assert keys.feed(b"ab\x10c") == (b"ab\x10c", False)
    assert keys.feed(b"x\x10") == (b"x", False)
    assert keys.feed(b"\x11rest") == (b"", True)
    assert DetachKeys("a,a,b").feed(b"aaxaab!") == (b"aax", True)
    assert parse_keys("ctrl-a,ctrl-[,z") == b"\x01\x1bz"
    with pytest.raises(InvalidInput):
        parse_keys("ctrl-aa")


def test_frames():
    assert frame("stderr", b"abc") == b"\x02\0\0\0\0\0\0\x03abc"


def test_names():
    assert check_name("/web-1.x_y") == "web-1.x_y"
    for bad in ("", "a", "-ab", "../x", "a/b", "é" * 4, "x" * 5000, "a b", "%2e%2e"):
        with pytest.raises(InvalidInput):
            check_name(bad)
    assert random_name(()) != ""


def test_ports():
    assert parse_port("80") == (80, "tcp")
    assert parse_port("53/UDP") == (53, "udp")
    for bad in ("x", "99999", "80/icmp", "-1", "80-90", "８０"):
        with pytest.raises(InvalidInput):
            parse_port(bad)
    host = host_config({"PortBindings": {"80": None, "81/tcp": [{"HostPort": "8081"}, {"HostIp": "127.0.0.1", "HostPort": 8082}]}})
    assert host["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": ""}],
        "81/tcp": [{"HostIp": "", "HostPort": "8081"}, {"HostIp": "127.0.0.1", "HostPort": "8082"}],
    }


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"Cmd": 3}, "Cmd"),
        ({"Env": ["A", 1]}, "Env"),
        ({"Env": ["A=\0"]}, "Env"),
        ({"Labels": {"a": 1}}, "Labels"),
        ({"Tty": "yes"}, "Tty"),
        ({"StopTimeout": 1e400}, "StopTimeout"),
        ({"WorkingDir": "relative"}, "working directory"),
        ({"ExposedPorts": {"x": {}}}, "port"),
        ({"Hostname": "a b"}, "hostname"),
    ],
)
def test_a_wrong_field_is_named(body, word):
    with pytest.raises(InvalidInput, match=word):
        container_config(body)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"Memory": "1g"}, "Memory"),
        ({"Memory": 1000}, "6MB"),
        ({"Memory": 1 << 30, "MemorySwap": 1 << 20}, "memoryswap"),
        ({"NanoCpus": 10, "CpuQuota": 5000}, "Nano CPUs"),
        ({"RestartPolicy": {"Name": "sometimes"}}, "restart policy"),
        ({"RestartPolicy": {"Name": "always"}, "AutoRemove": True}, "AutoRemove"),
        ({"LogConfig": {"Type": "splunk"}}, "no log driver"),
        ({"CgroupnsMode": "foo"}, "invalid cgroup namespace mode: foo"),
        ({"IpcMode": "container"}, "invalid IPC mode: container"),
        ({"IpcMode": "container:"}, "invalid IPC mode: container:"),
        ({"PidMode": "foo"}, "invalid PID mode: foo"),
        ({"UTSMode": "container:x"}, "invalid UTS mode: container:x"),
        ({"NetworkMode": "container:"}, "invalid container format"),
        ({"Memory": -5}, "Minimum memory limit"),
        ({"OomScoreAdj": 5000}, "oom score"),
        ({"PortBindings": [1]}, "PortBindings"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 4}]}, "ulimit"),
        ({"Ulimits": [{"Name": "nofile", "Soft": True, "Hard": 4}]}, "ulimit"),
        ({"Devices": [{"PathOnHost": 5}]}, "PathOnHost"),
        ({"LogConfig": {"Config": {"max-file": "0"}}}, "max-file"),
        ({"LogConfig": {"Config": {"max-file": "²"}}}, "max-file"),
        ({"DeviceRequests": [{"Count": 1, "DeviceIDs": ["0"]}]}, "cannot set both Count and DeviceIDs"),
        ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["0"]}]}, "write vendor/class=name"),
        ({"DeviceRequests": [{"Count": "all"}]}, "must be a number"),
        ({"DeviceRequests": [{"Capabilities": ["gpu"]}]}, "list of lists"),
    ],
)
def test_limits_that_cannot_be(body, word):
    with pytest.raises(InvalidInput, match=word):
        host_config(body)


@pytest.mark.parametrize("body", [{"CpuRealtimeRuntime": 1000}])
def test_what_is_not_supported_is_not_passed_over(body):
    with pytest.raises(NotSupported):
        host_config(body)


@pytest.mark.parametrize(
    "options",
    [
        {"Type": "bind", "BindOptions": {"Propagation": 5}},
        {"Type": "volume", "VolumeOptions": {"Subpath": 5}},
        {"Type": "volume", "VolumeOptions": {"Labels": [1]}},
        {"Type": "volume", "VolumeOptions": {"DriverConfig": 5}},
        {"Type": "volume", "VolumeOptions": {"DriverConfig": {"Options": ["a"]}}},
        {"Type": "tmpfs", "TmpfsOptions": {"SizeBytes": "a"}},
        {"Type": "tmpfs", "TmpfsOptions": {"Mode": True}},
        {"Type": "tmpfs", "TmpfsOptions": {"Options": 5}},
        {"Type": "tmpfs", "TmpfsOptions": {"Options": [[5, {}]]}},
    ],
)
def test_mount_options_of_wrong_types(options):
    with pytest.raises(InvalidInput):
        parse_mount({"Target": "/x", "Source": "/tmp" if options["Type"] == "bind" else "", **options})


def test_strings_stand_for_lists_of_one_and_case_does_not_matter():
    config = container_config({"cmd": "ls", "ENTRYPOINT": ["/x"], "image": "i"})
    assert (config["Cmd"], config["Entrypoint"], config["Image"]) == (["ls"], ["/x"], "i")


class FakeImage:
    def __init__(self, **config):
        self.runtime_config = config


@pytest.mark.parametrize(
    ("image", "body", "expected"),
    [
        ({"Cmd": ["c"]}, {}, (None, ["c"])),
        ({"Cmd": ["c"], "Entrypoint": ["e"]}, {}, (["e"], ["c"])),
        ({"Cmd": ["c"], "Entrypoint": ["e"]}, {"Cmd": ["x"]}, (["e"], ["x"])),
        ({"Cmd": ["c"], "Entrypoint": ["e"]}, {"Entrypoint": ["y"]}, (["y"], None)),
        ({"Cmd": ["c"], "Entrypoint": ["e"]}, {"Entrypoint": [""], "Cmd": ["x"]}, (None, ["x"])),
    ],
)
def test_command_and_entrypoint(image, body, expected):
    config = container_config(body)
    adopt(config, FakeImage(**image))
    assert (config["Entrypoint"], config["Cmd"]) == expected


def test_the_image_fills_what_the_user_leaves_open():
    config = container_config({"Env": ["B=2"], "Labels": {"x": "mine"}, "User": "me"})
    adopt(
        config, FakeImage(Env=["A=1", "B=1"], Labels={"x": "base", "y": "base"}, User="other", WorkingDir="/w", ExposedPorts={"80/tcp": {}})
    )
    assert config["Env"] == ["B=2", "A=1"]
    assert config["Labels"] == {"x": "mine", "y": "base"}
    assert (config["User"], config["WorkingDir"], config["ExposedPorts"]) == ("me", "/w", {"80/tcp": {}})


def test_health_checks_merge():
    base = {"Test": ["CMD", "x"], "Interval": 5_000_000, "Retries": 2}
    assert merge_health(base, None) == base
    assert merge_health(base, {"Interval": 7_000_000, "Retries": 0}) == {"Test": ["CMD", "x"], "Interval": 7_000_000, "Retries": 2}
    with pytest.raises(InvalidInput):
        merge_health(None, {"Test": ["NONSENSE", "x"]})


def test_binds():
    assert parse_bind("/a/../b:/c:ro") == MountPoint("bind", "/c", "/b", mode="ro", rw=False, propagation="rprivate", make_source=True)
    assert parse_bind("name:/c").name == "name"
    assert parse_bind("name:/c:nocopy").no_copy
    for bad in ("", "/a:/", "/a:rel", "/a:/b:xx", "a/b:/c", "/a:/b:ro:x", "../x:/c", "n:/c:rshared"):
        with pytest.raises(InvalidInput):
            parse_bind(bad)


def test_mounts(tmp_path):
    assert parse_mount({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 0o1777}}).options == (
        "size=1024",
        "mode=1777",
    )
    assert not parse_mount({"Type": "bind", "Source": str(tmp_path), "Target": "/t", "ReadOnly": True}).rw
    for bad in (
        {"Type": "bind", "Source": "/does/not/exist", "Target": "/t"},
        {"Type": "volume", "Source": "n", "Target": "/t", "VolumeOptions": {"Subpath": "../x"}},
        {"Type": "what", "Target": "/t"},
        {"Type": "bind", "Source": 3, "Target": "/t"},
        {"Type": "volume", "Source": "n"},
    ):
        with pytest.raises(InvalidInput):
            parse_mount(bad)


def test_an_images_volume_gives_way_and_doubles_are_refused():
    config = {"Volumes": {"/data": {}, "/other": {}}}
    host = host_config({"Binds": ["/x:/data"]})
    assert [(point.type, point.destination) for point in plan(config, host, lambda _: [])] == [("bind", "/data"), ("volume", "/other")]
    with pytest.raises(InvalidInput, match="Duplicate mount point"):
        plan(config, host_config({"Binds": ["/x:/data", "/y:/data"]}), lambda _: [])


def test_an_images_volume_may_be_written_without_its_slash():
    """`VOLUME [/a, /b]` without quotes is no JSON: these are names, and Docker mounts them below the root and shows them as written."""
    config = {"Volumes": {"[/a,": {}, "/b]": {}, "rel//x/.": {}, "../up": {}, "//two/": {}, "data": {}}}
    points = plan(config, host_config({"Binds": ["/x:/data"]}), lambda _: [])
    assert [(point.destination, point.place) for point in points] == [
        ("/data", "/data"),
        ("[/a,", "/[/a,"),
        ("/b]", "/b]"),
        ("rel/x", "/rel/x"),
        ("../up", "/up"),
        ("/two", "/two"),
    ]
    for root in ("/", ".", "..", "//", ""):
        with pytest.raises(InvalidInput, match="destination can't be '/'"):
            plan({"Volumes": {root: {}}}, host_config({}), lambda _: [])


def test_mount_points_survive_their_row():
    point = parse_mount({"Type": "volume", "Source": "n", "Target": "/t", "VolumeOptions": {"Labels": {"a": "b"}}})
    assert MountPoint.from_row(point.row()) == point


def record(**changes):
    host = host_config({"RestartPolicy": changes.pop("policy", {"Name": "no"})})
    fields = {
        "id": "i",
        "name": "n",
        "created_ns": 0,
        "image": "",
        "image_name": "",
        "config": container_config({}),
        "host": host,
        "networking": {},
    }
    return Record(**{**fields, **changes})


def test_restart_policies():
    failing = {"policy": {"Name": "on-failure", "MaximumRetryCount": 2}, "exit_code": 1}
    assert restart.wants_restart(record(**failing, restart_count=1))
    assert not restart.wants_restart(record(**failing, restart_count=2))
    assert not restart.wants_restart(record(**{**failing, "exit_code": 0}))
    assert not restart.wants_restart(record(policy={"Name": "always"}, stopped_by_user=True))
    assert restart.wants_start_with_daemon(record(policy={"Name": "always"}, stopped_by_user=True, started_ns=1))
    assert not restart.wants_start_with_daemon(record(policy={"Name": "unless-stopped"}, stopped_by_user=True, started_ns=1))


def test_restarts_wait_longer_each_time_until_a_good_run():
    short, long = record(started_ns=0, finished_ns=1 * S), record(started_ns=0, finished_ns=11 * S)
    delays = [0.0]
    for _ in range(12):
        delays.append(restart.next_delay(short, delays[-1]))
    assert delays[1:4] == [0.1, 0.2, 0.4]
    assert delays[-1] == 60
    assert restart.next_delay(long, 60) == 0.1


def test_records_survive_their_row_and_newer_fields():
    before = record(status=Status.EXITED, mounts=(parse_bind("/a:/b").row(),))
    assert Record.decode(before.encode()).encode() == before.encode()
    newer = before.encode().replace(b'"name":"n"', b'"name":"n","later":1', 1)
    assert Record.decode(newer).encode() == before.encode()


def test_signals():
    assert [parse_signal(text) for text in ("9", "KILL", "sigterm", "RTMIN+1", "SIGRTMAX-1")] == [9, 9, 15, 35, 63]
    for bad in ("", "0", "65", "NOPE", "RTMIN+x", "RTMIN+99", "RTMAX-31", "²", "9" * 5000):
        with pytest.raises(InvalidInput):
            parse_signal(bad)


def test_words_of_a_status():
    cases = {0: "Less than a second", 1: "1 second", 59: "59 seconds", 60: "About a minute", 3599: "59 minutes", 3600: "About an hour"}
    cases |= {7200: "2 hours", 49 * 3600: "2 days", 15 * 86400: "2 weeks", 70 * 86400: "2 months", 3 * 365 * 86400: "3 years"}
    assert {seconds: human_duration(seconds * S) for seconds in cases} == cases
    assert shlex_join(["sh", "-c", "echo it's"]) == "sh -c 'echo it'\"'\"'s'"


def test_change_instructions():
    config = apply_changes(
        {"Env": ["A=1"]},
        [
            'CMD ["a", "b"]',
            "ENTRYPOINT run it",
            'ENV A=2 B="x y"',
            "LABEL k=v",
            "EXPOSE 80 53/udp",
            "USER me",
            "VOLUME /a /b",
            "WORKDIR /w",
            "ONBUILD RUN x",
        ],
    )
    assert config == {
        "Env": ["A=2", "B=x y"],
        "Cmd": ["a", "b"],
        "Entrypoint": ["/bin/sh", "-c", "run it"],
        "Labels": {"k": "v"},
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "User": "me",
        "Volumes": {"/a": {}, "/b": {}},
        "WorkingDir": "/w",
        "OnBuild": ["RUN x"],
    }
    for bad in ("RUN x", "CMD", "ENV A", 'LABEL a="'):
        with pytest.raises(InvalidInput):
            apply_changes({}, [bad])


def test_credentials_and_platforms():
    assert decode("eyJhIjoiYiJ9", "X") == {"a": "b"}
    assert decode("eyJhIjoiYmMifQ", "X") == {"a": "bc"}
    for bad in ("%%%", "YWJj", "W10"):
        with pytest.raises(InvalidInput):
            decode(bad, "X")
    assert [registry_key(name) for name in ("https://index.docker.io/v1/", "localhost:5000", "ghcr.io")] == [
        "docker.io",
        "localhost:5000",
        "ghcr.io",
    ]
    assert platform_of("linux/arm/v7") == Platform("linux", "arm", "v7")
    assert platform_of("") is None
    with pytest.raises(InvalidInput):
        platform_of("a/b/c/d")


def test_rows_of_ps():
    output = "UID   PID CMD\nroot    1 init with words\nroot   22 other\n"
    assert parse(output, [1]) == {"Titles": ["UID", "PID", "CMD"], "Processes": [["root", "1", "init with words"]]}
    with pytest.raises(InvalidInput):
        parse("CMD\nx\n", [1])


@pytest.mark.parametrize("text", ["size=abc", "size=-1", "mode=9", "uid=x", "nosuch", "nosuch=1", "mode", "ro=1", "size=1m,size=tiny"])
def test_tmpfs_options_that_cannot_be(text):
    with pytest.raises(InvalidInput, match="invalid tmpfs option"):
        plan({"Volumes": None}, host_config({"Tmpfs": {"/x": text}}), lambda _: [])


def test_read_only_binds_reach_below():
    def options(**given):
        mount = {"Type": "bind", "Source": "/tmp", "Target": "/x", "ReadOnly": True, "BindOptions": given}
        return oci_mount(parse_mount(mount), {}, lambda _: [])["options"]

    assert options() == ["rbind", "rro", "rprivate"]
    assert options(ReadOnlyNonRecursive=True) == ["rbind", "ro", "rprivate"]
    assert options(NonRecursive=True) == ["bind", "ro", "rprivate"]
    assert options(ReadOnlyForceRecursive=True) == ["rbind", "rro", "rprivate"]
    assert oci_mount(parse_bind("/tmp:/x:ro"), {}, lambda _: [])["options"] == ["rbind", "rro", "rprivate"]


@pytest.mark.parametrize(
    ("read_only", "options", "message"),
    [
        (False, {"ReadOnlyForceRecursive": True}, "needs ReadOnly"),
        (True, {"ReadOnlyForceRecursive": True, "ReadOnlyNonRecursive": True}, "conflicts with ReadOnlyNonRecursive"),
        (True, {"ReadOnlyForceRecursive": True, "NonRecursive": True}, "conflicts with NonRecursive"),
        (True, {"ReadOnlyForceRecursive": True, "Propagation": "rshared"}, "needs the propagation rprivate"),
    ],
)
def test_recursive_options_that_do_not_go_together(read_only, options, message):
    with pytest.raises(InvalidInput, match=message):
        parse_mount({"Type": "bind", "Source": "/tmp", "Target": "/x", "ReadOnly": read_only, "BindOptions": options})


def test_shared_propagation_needs_a_shared_mount(tmp_path):
    row = {"propagation": "rshared", "source": "/proc/sys"}
    with pytest.raises(InvalidInput, match="path /proc/sys is mounted on /proc but it is not a shared mount"):
        check_shared([row])


@pytest.mark.parametrize("body", [{"CpusetMems": "9999"}, {"CpusetMems": "x"}, {"CpusetCpus": "9999"}, {"CpusetCpus": "0-"}])
def test_processors_and_memory_that_are_not_there(body):
    with pytest.raises(InvalidInput, match=r"not available|Invalid value"):
        host_config(body)
    assert host_config({"CpusetMems": "0", "CpusetCpus": "0"})["CpusetMems"] == "0"


@pytest.mark.parametrize("mode", ["auto", "map:65536:65536", "container:x", "map:0:5", "map:x"])
def test_user_namespaces_are_for_callers_in_process(mode):
    with pytest.raises(InvalidInput, match="invalid userns mode"):
        userns.check(mode, trusted=False)
    for fine in ("", "host"):
        userns.check(fine, trusted=False)
    userns.check("map:65536:65536", trusted=True)
    assert userns.parse("map:4294967295:2") is None
