"""A container's life: start, exit codes, output, and why it would not start."""

from __future__ import annotations

import pytest

from atoll.errors import InvalidInput
from atoll.runtime import CommandNotExecutable, CommandNotFound, StartFailed


def test_output_and_exit_code(box):
    async def body(box):
        status, output = await box.run(["sh", "-c", "echo hello; echo oops >&2; exit 7"])
        assert (status.code, status.signal, status.oom_killed) == (7, None, False)
        assert output == "hello\noops\n"
        assert sorted(box.log("c1")) == [("stderr", "F", "oops"), ("stdout", "F", "hello")]

    box(body)


def test_signalled_exit_is_128_and_the_signal(box):
    async def body(box):
        name = box.bundle(["sleep", "100"])
        pid = await box.start(name)
        assert [(state.id, state.pid, state.status) for state in await box.runtime.list()] == [(name, pid, "running")]
        await box.runtime.signal(name, 9)
        status = await box.runtime.wait(name)
        assert (status.code, status.signal, status.oom_killed) == (137, 9, False)
        (state,) = await box.runtime.list()
        assert (state.status, state.exit) == ("exited", status)

    box(body)


@pytest.mark.parametrize(
    ("args", "error", "code", "message"),
    [
        (["nosuchcmd"], CommandNotFound, 127, 'exec: "nosuchcmd": executable file not found in $PATH'),
        (["/no/such"], CommandNotFound, 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
        (["no-interpreter"], CommandNotFound, 127, "exec /bin/no-interpreter: no such file or directory"),
        (["not-executable"], CommandNotExecutable, 126, 'exec: "not-executable": permission denied'),
        (["/etc"], CommandNotExecutable, 126, 'exec: "/etc": is a directory'),
        (["garbage"], CommandNotExecutable, 126, "exec /bin/garbage: exec format error"),
        (["/etc/passwd"], CommandNotExecutable, 126, 'exec: "/etc/passwd": permission denied'),
        ([""], CommandNotFound, 127, 'exec: "": executable file not found in $PATH'),
    ],
)
def test_not_startable(box, args, error, code, message):
    async def body(box):
        with pytest.raises(error) as caught:
            await box.start(box.bundle(args))
        assert str(caught.value) == message
        assert caught.value.exit_code == code
        assert await box.runtime.list() == []

    box(body)


def test_start_failure_names_the_mount(box):
    async def body(box):
        mount = {"destination": "/mnt", "type": "bind", "source": "/no/such/source", "options": ["rbind"]}
        with pytest.raises(StartFailed, match=r"/no/such/source.*/mnt.*No such file"):
            await box.start(box.bundle(["true"], mounts=[mount]))
        with pytest.raises(StartFailed):
            await box.start(box.bundle(["true"], sysctls={"net.no.such": "1"}))

    box(body)


def test_a_root_that_is_just_a_directory(box):
    async def body(box):
        def edit(config):
            config["root"]["path"] = str(box.root)

        name = box.bundle(["sh", "-c", "echo /*; touch /x"], edit=edit, readonly_rootfs=True)
        await box.start(name, rootfs=None)
        assert (await box.runtime.wait(name)).code == 1
        assert box.output(name).startswith("/bin /dev /etc /proc /root /sys /tmp\n")

    box(body)


@pytest.mark.parametrize("arguments", [["echo", "x" * 120_000], ["echo", *["y" * 1000] * 1500]])
def test_long_arguments(box, arguments):
    async def body(box):
        status, output = await box.run(arguments)
        assert status.code == 0
        assert output == " ".join(arguments[1:]) + "\n"

    box(body)


def test_too_long_arguments(box):
    async def body(box):
        with pytest.raises(CommandNotExecutable, match="argument list too long"):
            await box.run(["echo", "x" * 200_000])

    box(body)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot read the bundle"),
        ("[]", "not an OCI runtime spec"),
        ('{"linux": {}, "process": {"args": []}}', "process.args must be a list"),
        ('{"linux": {}, "process": {"args": ["x"], "cwd": "relative"}}', "Cwd must be an absolute path"),
        ('{"linux": {}, "process": {"args": ["x"], "cwd": "/"}}', "mount namespace of its own"),
    ],
)
def test_bad_bundles(box, config, message):
    async def body(box):
        name = box.bundle(["true"])
        (box.directory(name) / "config.json").write_text(config)
        with pytest.raises(InvalidInput, match=message):
            await box.start(name)
        assert (await box.run(["true"]))[0].code == 0  # the keeper goes on

    box(body)
