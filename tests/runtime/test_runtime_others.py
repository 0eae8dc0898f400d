"""The same containers by our own runtime and by every other that is installed (runc, crun)."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from atoll.errors import NotSupported
from atoll.kernel import capabilities
from atoll.runtime import Attach, CommandNotExecutable, CommandNotFound, OtherRuntime, StartFailed
from atoll.runtime.resources import from_host_config
from atoll.runtime.spec import DEFAULT_CAPABILITIES, PRIVATE_NAMESPACES

MIB = 1024 * 1024


def test_output_exit_code_and_root(any_box):
    async def body(box):
        status, output = await box.run(["sh", "-c", "echo hello; echo oops >&2; echo /*; grep ' / ' /proc/mounts; exit 7"], hostname="box")
        assert (status.code, status.signal, status.oom_killed) == (7, None, False)
        assert min(box.log("c1")) == ("stderr", "F", "oops")
        assert "hello\n" in output
        assert "/bin /dev /etc /proc /root /sys /tmp\n" in output
        assert "overlay / overlay rw" in output

    any_box(body)


def test_quick_ends_are_not_lost(any_box):
    async def body(box):
        for _ in range(3):
            assert (await box.run(["true"]))[0].code == 0
        name = box.bundle(["false"])
        for _ in range(2):  # the same container again
            await box.start(name)
            assert (await box.runtime.wait(name)).code == 1
            await box.runtime.delete(name)

    any_box(body)


def test_identity_and_confinement(any_box):
    async def body(box):
        script = "id; pwd; echo $HOME; umask; grep -E 'Cap(Bnd|Inh|Amb)|Seccomp:|NoNewPrivs' /proc/self/status; ls /proc/self/fd | wc -l"
        lines = (await box.sh(script, user="app", group_add=["video", "77"], cwd="/work/dir", umask=0o027)).splitlines()
        assert lines[0].startswith("uid=1000(app) gid=1001(app) groups=")
        assert all(part in lines[0] for part in ("29(audio)", "44(video)", "77", "1001(app)"))
        assert lines[1:4] == ["/work/dir", "/home/app", "0027"]
        fields = dict(line.split(":\t") for line in lines[4:-1])
        expected = capabilities.mask(DEFAULT_CAPABILITIES) & capabilities.available()
        assert int(fields["CapBnd"], 16) == expected
        assert (int(fields["CapInh"], 16), int(fields["CapAmb"], 16)) == (0, 0)
        assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", "0")
        assert lines[-1] == "4"

    any_box(body)


def test_namespaces_and_devices(any_box):
    async def body(box):
        output = await box.sh(
            "for n in mnt pid net ipc uts; do readlink /proc/self/ns/$n; done; echo $$; hostname;"
            "cat /proc/keys | wc -c; touch /proc/sys/kernel/domainname 2>&1 | grep -c Read-only;"
            "echo x > /dev/null && head -c 3 /dev/zero | wc -c; cat /proc/sys/kernel/domainname; echo $HOME",
            hostname="box",
            domainname="example.org",
            env=["PATH=/bin", "HOME="],
        )
        lines = output.splitlines()
        host = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "pid", "net", "ipc", "uts")]
        assert not set(lines[:5]) & set(host)
        assert lines[5:] == ["1", "box", "0", "1", "3", "example.org", "/root"]

    any_box(body)


def test_joined_network_namespace(any_box):
    async def body(box):
        pid = await box.start(box.bundle(["sleep", "100"]))
        joined = {**PRIVATE_NAMESPACES, "network": f"/proc/{pid}/ns/net"}
        assert (await box.sh("readlink /proc/self/ns/net", namespaces=joined)).strip() == os.readlink(f"/proc/{pid}/ns/net")

    any_box(body)


def test_mounts(any_box, tmp_path):
    (tmp_path / "volume" / "part").mkdir(parents=True)
    (tmp_path / "volume" / "part" / "file").write_text("inside\n")
    (tmp_path / "volume" / "evil").symlink_to("/etc")
    volume = str(tmp_path / "volume")
    mounts = [
        {"destination": "/mnt", "type": "bind", "source": volume, "options": ["rbind", "ro", "rprivate"]},
        {"destination": "/part", "type": "bind", "source": volume, "options": ["rbind", "rw", "x-atoll.subpath=part"]},
        {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1m"]},
    ]

    for layer in ("low", "high"):
        (tmp_path / layer).mkdir()
        (tmp_path / layer / layer).write_text(f"{layer}\n")
    layers = [f"lowerdir+={tmp_path / layer}" for layer in ("high", "low")]
    mounts.append({"destination": "/image", "type": "overlay", "source": "overlay", "options": ["ro", *layers]})

    async def body(box):
        assert (
            await box.sh("cat /image/low /image/high; touch /image/x 2>/dev/null || echo refused", mounts=mounts) == "low\nhigh\nrefused\n"
        )
        output = await box.sh("cat /mnt/part/file /part/file; touch /mnt/x 2>&1; touch /part/y; df -m /scratch | tail -1", mounts=mounts)
        lines = output.splitlines()
        assert lines[:2] == ["inside", "inside"]
        assert "Read-only file system" in lines[2]
        assert lines[3].split()[1] == "1"
        assert (tmp_path / "volume" / "part" / "y").exists()
        mounts[1]["options"][-1] = "x-atoll.subpath=evil"
        with pytest.raises(StartFailed):
            await box.run(["true"], mounts=mounts)

    any_box(body)


def test_shared_memory_of_another_container(any_box):
    async def body(box):
        pid = await box.start(box.bundle(["sh", "-c", "echo theirs > /dev/shm/x; sleep 100"]))
        options = ["rbind", "rprivate", f"x-atoll.mountns=/proc/{pid}/ns/mnt"]
        mount = {"destination": "/dev/shm", "type": "bind", "source": "/dev/shm", "options": options}
        script = "while ! cat /dev/shm/x 2>/dev/null; do sleep 0.01; done"
        assert await box.sh(script, mounts=[mount], namespaces={**PRIVATE_NAMESPACES, "ipc": f"/proc/{pid}/ns/ipc"}) == "theirs\n"

    any_box(body)


def test_limits(any_box):
    async def body(box):
        resources = from_host_config({"Memory": 32 * MIB, "PidsLimit": 20})
        name = box.bundle(["sleep", "100"], resources=resources)
        pid = await box.start(name)
        stats = await box.runtime.stats(name)
        assert stats["memory"]["limit"] == 32 * MIB
        assert stats["pids"]["limit"] == 20
        assert await box.runtime.pids(name) == [pid]
        await box.runtime.update(name, from_host_config({"Memory": 64 * MIB}))
        assert (await box.runtime.stats(name))["memory"]["limit"] == 64 * MIB
        await box.runtime.pause(name)
        await box.runtime.resume(name)
        await box.runtime.signal(name, 9)
        status = await asyncio.wait_for(box.runtime.wait(name), 5)
        assert (status.code, status.oom_killed) == (137, False)
        hog = ["sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=64M count=1"]
        status, _ = await box.run(hog, resources=from_host_config({"Memory": 24 * MIB, "MemorySwap": 24 * MIB}))
        assert (status.code, status.oom_killed) == (137, True)

    any_box(body)


def test_signals_reach_the_program(any_box):
    async def body(box):
        name = box.bundle(["sh", "-c", "trap 'echo term; exit 4' TERM; echo up; while :; do sleep 0.02; done"])
        with Attach() as attach:
            await box.start(name, attach=attach)
            assert await asyncio.wait_for(attach.stdout.read(), 10) == b"up\n"
            await box.runtime.signal(name, 15)
            assert await asyncio.wait_for(attach.stdout.read(), 10) == b"term\n"
        assert (await asyncio.wait_for(box.runtime.wait(name), 5)).code == 4

    any_box(body)


def test_exec(any_box):
    async def body(box):
        name = box.bundle(["sleep", "100"], env=["PATH=/bin", "A=1"])
        await box.start(name)
        status, out, err = await box.exec(
            name, ["sh", "-c", "echo $A $B; id -u; cat; echo err >&2; exit 5"], b"given", env=["B=2"], user="app"
        )
        assert (status.code, out, err) == (5, b"1 2\n1000\ngiven", b"err\n")
        with pytest.raises(CommandNotFound):
            await box.exec(name, ["nosuch"])
        assert (await box.exec(name, ["true"]))[0].code == 0
        assert (await box.runtime.list())[0].execs == ()

    any_box(body)


def test_terminal(any_box):
    async def body(box):
        name = box.bundle(
            ["sh", "-c", "trap 'exit 130' INT; tty; stty size; read x; echo got $x; while :; do sleep 0.05; done"],
            terminal=True,
            console_size=(30, 90),
        )
        with Attach(stdin=True, stderr=False) as attach:
            await box.start(name, attach=attach, stdin=True)
            seen = b""
            await attach.stdin.write(b"typed\n")
            while b"got typed" not in seen:
                seen += await asyncio.wait_for(attach.stdout.read(), 10)
            assert b"/dev/" in seen
            assert b"30 90" in seen
            await box.runtime.resize(name, None, 100, 40)
            await attach.stdin.write(b"\x03")
            await asyncio.wait_for(box.read_all(attach.stdout), 10)
        assert (await asyncio.wait_for(box.runtime.wait(name), 5)).code == 130

    any_box(body)


def test_exec_with_a_terminal(any_box):
    async def body(box):
        name = box.bundle(["sleep", "100"])
        await box.start(name)
        from atoll.runtime.spec import exec_process

        base = {"process": {"args": [], "env": ["PATH=/bin"], "cwd": "/", "user": {"username": "0"}}}
        process = exec_process(base, args=["tty"], terminal=True)
        with Attach(stderr=False) as attach:
            await box.runtime.exec(name, "t", process, attach=attach)
            assert (await asyncio.wait_for(box.read_all(attach.stdout), 10)).startswith(b"/dev/pts/")
        assert (await box.runtime.wait(name, "t")).code == 0

    any_box(body)


def test_the_next_keeper_takes_them_over(any_box, tmp_path):
    place = tmp_path / "stopped"

    async def body(box):
        hook = {"path": "/bin/sh", "args": ["sh", "-c", f"echo poststop > {place}"]}
        script = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.02; done"
        name = box.bundle(["sh", "-c", script], edit=lambda config: config.update(hooks={"poststop": [hook]}))
        pid = await box.start(name)
        os.kill(int((box.instance.run / "keeper.pid").read_text()), signal.SIGKILL)
        waiting = asyncio.create_task(box.runtime.wait(name))
        assert [(state.id, state.pid, state.status) for state in await box.runtime.list()] == [(name, pid, "running")]
        assert (await box.exec(name, ["echo", "inside"]))[1] == b"inside\n"
        await box.runtime.signal(name, signal.SIGTERM)
        assert (await asyncio.wait_for(waiting, 5)).code == 7
        assert box.output(name) == "up\nbye\n"
        await box.runtime.delete(name)
        assert place.read_text() == "poststop\n"

    any_box(body)


@pytest.mark.parametrize(
    ("args", "error"), [(["nosuchcmd"], CommandNotFound), (["/etc"], CommandNotExecutable), (["not-executable"], StartFailed)]
)
def test_programs_that_are_none(any_box, args, error):
    async def body(box):
        with pytest.raises(error):
            await box.start(box.bundle(args))
        assert await box.runtime.list() == []
        assert (await box.run(["true"]))[0].code == 0

    any_box(body)


def test_an_init(any_box):
    async def body(box):
        status, output = await box.run(["sh", "-c", "echo $$; exit 5"], init=True)
        assert status.code == 5
        assert output.splitlines()[0] != "1"

    any_box(body)


def test_a_runtime_that_is_not_there(box):
    async def body(box):
        from pathlib import Path

        with pytest.raises(StartFailed, match="No such file"):
            await box.start(box.bundle(["true"]), runtime=OtherRuntime("nosuch", Path("/no/such/runtime")))
        assert await box.runtime.list() == []

    box(body)


def test_shared_propagation_is_refused_by_name(any_box, tmp_path):
    async def body(box):
        mounts = [{"destination": "/mnt", "type": "bind", "source": str(tmp_path), "options": ["rbind", "rshared"]}]
        if box.other is None:
            assert (await box.run(["true"], mounts=mounts))[0].code == 0
            return
        with pytest.raises(NotSupported, match="/mnt"):
            await box.run(["true"], mounts=mounts)

    any_box(body)


def test_a_user_namespace_is_refused_by_name(any_box):
    async def body(box):
        def edit(config):
            maps = [{"containerID": 0, "hostID": 100_000, "size": 65536}]
            config["linux"]["namespaces"].append({"type": "user"})
            config["linux"].update(uidMappings=maps, gidMappings=maps)

        if box.other is None:
            assert (await box.run(["true"], edit=edit))[0].code == 0
            return
        with pytest.raises(NotSupported, match="use the runtime atoll"):
            await box.run(["true"], edit=edit)

    any_box(body)
