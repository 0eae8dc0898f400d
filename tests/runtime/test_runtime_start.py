"""A container's life: start, exit codes, output, and why it would not start."""

from __future__ import annotations

import pytest

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
