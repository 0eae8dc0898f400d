import pytest

from atoll.cli.containerflags import CREATE_FLAGS, body, parse_publish
from atoll.cli.flags import Command, Flag, UsageError, check_arguments, parse, usage


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


@pytest.mark.parametrize(
    "words",
    [
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
