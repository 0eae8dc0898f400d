"""The engine in process, as the kubelet uses it."""

import asyncio
import os

import pytest

from atoll.engine import Engine
from atoll.engine.settings import Settings
from atoll.errors import Conflict, InvalidInput, NotFound
from atoll.runtime import CommandNotFound
from engine_harness import busybox_tar


def run(instance, story, settings=None):
    """Runs `story(engine)` against an engine of the instance, and takes everything away."""

    async def whole():
        engine = Engine(instance, settings)
        await engine.start()
        try:

            async def chunks():
                yield busybox_tar()

            await engine.images.import_tar(chunks(), target="busybox", config={"Cmd": ["sh"]})
            await asyncio.wait_for(story(engine), 60)
        finally:
            await engine.destroy()
            await engine.close()

    asyncio.run(whole())


def test_a_pods_containers_share_its_network(instance):
    async def story(engine):
        netns = await engine.networks.create_netns("pod1", scope="pod")
        try:
            seat = await engine.networks.attach("pod1", "bridge", netns=netns, name="pod", scope="pod")
            hosts = instance.home / "hosts"
            hosts.write_text(f"{seat.address} pod\n")
            body = {
                "Image": "busybox",
                "Cmd": ["sh", "-c", "ip -4 -o addr show eth0; cat /etc/hosts"],
                "Labels": {"io.kubernetes.pod.uid": "u"},
                "HostConfig": {"NetworkMode": f"netns:{netns}", "Binds": [f"{hosts}:/etc/hosts"]},
            }
            container = await engine.containers.create("k8s_c_pod_ns_u_0", body)
            await engine.containers.start(container)
            assert (await engine.containers.wait(container)).code == 0
            output = b"".join([data async for _, data in engine.containers.logs(container)]).decode()
            assert seat.address in output.splitlines()[0]
            assert output.splitlines()[1] == f"{seat.address} pod"
            assert [row["Id"] for row in engine.containers.list(all=True, filters={"label": ["io.kubernetes.pod.uid=u"]})] == [container]
            await engine.containers.remove(container)
            assert netns.exists()
        finally:
            await engine.networks.detach_all("pod1")
            await engine.networks.delete_netns("pod1", scope="pod")

    run(instance, story)


def test_that_form_is_not_for_clients(instance):
    async def story(engine):
        with pytest.raises(InvalidInput, match="invalid network mode"):
            await engine.containers.create_from_client(None, {"Image": "busybox", "HostConfig": {"NetworkMode": "netns:/proc/1/ns/net"}})

    run(instance, story)


def test_sessions_exec_and_events(instance):
    async def story(engine):
        told = engine.events.subscribe({"type": ["container"]})
        body = {"Image": "busybox", "Cmd": ["cat"], "OpenStdin": True, "StdinOnce": True, "HostConfig": {"NetworkMode": "none"}}
        container = await engine.containers.create("cat", body)
        session = await engine.containers.attach(container, stdin=True)
        await engine.containers.start(container)
        exec_id = await engine.exec.create(container, {"Cmd": ["sh", "-c", "echo in; exit 3"], "AttachStdout": True})
        inner = await engine.exec.start(exec_id)
        assert [piece async for piece in inner.output()] == [("stdout", b"in\n")]
        inner.close()
        assert await engine.exec.get(exec_id).ended == 3
        await session.send(b"hello")
        session.close_input()
        assert b"".join([data async for _, data in session.output()]) == b"hello"
        session.close()
        assert (await engine.containers.wait(container)).code == 0
        await engine.containers.remove("cat")
        with pytest.raises(NotFound):
            engine.containers.inspect(container)
        engine.events.close()
        seen = [event["Action"] async for event in told]
        assert [action.partition(":")[0] for action in seen if action != "exec_die"] == (
            ["create", "attach", "start", "exec_create", "exec_start", "die", "destroy"]
        )

    run(instance, story)


def test_what_does_not_start_says_why(instance):
    async def story(engine):
        container = await engine.containers.create(None, {"Image": "busybox", "Cmd": ["nosuch"], "HostConfig": {"NetworkMode": "none"}})
        with pytest.raises(CommandNotFound) as caught:
            await engine.containers.start(container)
        assert caught.value.exit_code == 127
        state = engine.containers.inspect(container)["State"]
        assert (state["Status"], state["ExitCode"]) == ("created", 127)
        assert "executable file not found" in state["Error"]
        with pytest.raises(Conflict):
            await engine.containers.kill(container)

    run(instance, story)


def test_forced_removal_during_start(instance):
    async def story(engine):
        for _ in range(5):
            body = {"Image": "busybox", "Cmd": ["sleep", "60"], "HostConfig": {"NetworkMode": "none"}}
            container = await engine.containers.create(None, body)
            await asyncio.gather(engine.containers.start(container), engine.containers.remove(container, force=True))
            with pytest.raises(NotFound):
                engine.containers.inspect(container)

    run(instance, story)


def test_the_keeper_is_asked_until_it_answers(instance, monkeypatch):
    async def story(engine):
        from atoll.engine.containers import recovery
        from atoll.runtime import KeeperLost

        monkeypatch.setattr(recovery, "RECONNECT_S", 0.001)
        container = await engine.containers.create(
            None, {"Image": "busybox", "Cmd": ["sleep", "60"], "HostConfig": {"NetworkMode": "none"}}
        )
        await engine.containers.start(container)
        ask, failures = engine.runtime.list, [KeeperLost("gone"), OSError(5, "disk")]

        async def unsteady():
            if failures:
                raise failures.pop()
            return await ask()

        monkeypatch.setattr(engine.runtime, "list", unsteady)
        losses, states = await recovery._reconnected(engine.services)
        assert (losses, list(states)) == (engine.runtime.losses, [container])
        assert not failures

    run(instance, story)


def test_twenty_at_once(instance):
    async def story(engine):
        async def one(number):
            body = {"Image": "busybox", "Cmd": ["sh", "-c", f"exit {number}"], "HostConfig": {"NetworkMode": "none", "AutoRemove": True}}
            container = await engine.containers.create(None, body)
            gone = asyncio.ensure_future(engine.containers.wait(container, "removed"))
            await asyncio.sleep(0)
            await engine.containers.start(container)
            return (await gone).code

        assert await asyncio.gather(*(one(number) for number in range(20))) == list(range(20))
        assert engine.containers.list(all=True) == []

    run(instance, story)


def test_trust_can_be_turned_off(instance):
    async def environment(engine):
        container = await engine.containers.create(None, {"Image": "busybox", "Cmd": ["env"], "HostConfig": {"NetworkMode": "none"}})
        await engine.containers.start(container)
        await engine.containers.wait(container)
        return b"".join([data async for _, data in engine.containers.logs(container)])

    async def story(engine):
        assert b"PIP_CERT" not in await environment(engine)

    run(instance, story, Settings(trust_host=False))


def test_nothing_stays_open_after_an_export(instance):
    async def story(engine):
        container = await engine.containers.create(None, {"Image": "busybox", "HostConfig": {"NetworkMode": "none"}})
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            async for _ in engine.changes.export(engine.containers.get(container)):
                pass
        export = engine.changes.export(engine.containers.get(container))
        await anext(export)
        await export.aclose()
        assert len(os.listdir("/proc/self/fd")) == before

    run(instance, story)


def test_a_container_in_a_user_namespace(instance, tmp_path):
    """As pods have it with hostUsers: false: root is nobody on the host, and a volume's files are its own."""

    async def story(engine):
        (tmp_path / "file").write_text("given\n")
        script = (
            "cat /proc/self/uid_map; id -u; stat -c %u /v/file /etc/hosts /bin/busybox; touch /v/mine /root/mine && cat /v/file; sleep 1000"
        )
        body = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", script],
            "HostConfig": {"UsernsMode": "map:196608:65536", "NetworkMode": "none", "Binds": [f"{tmp_path}:/v"]},
        }
        container = await engine.containers.create("mapped", body)
        await engine.containers.start(container)
        output = b""
        for _ in range(300):
            if output.endswith(b"given\n"):
                break
            output = b"".join([data async for _, data in engine.containers.logs(container)])
            await asyncio.sleep(0.01)
        assert output.decode().split() == ["0", "196608", "65536", "0", "0", "0", "0", "given"]
        pid = engine.containers.get(container).record.pid
        assert os.stat(f"/proc/{pid}").st_uid == 196608
        assert (tmp_path / "mine").stat().st_uid == 0
        await engine.containers.remove(container, force=True)

    run(instance, story)
