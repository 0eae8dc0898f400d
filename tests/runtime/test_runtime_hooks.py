"""OCI hooks: when each runs, what it is told, and what follows when it fails."""

from __future__ import annotations

import asyncio
import json
import os
import time

import pytest

from atoll.errors import InvalidInput
from atoll.runtime import StartFailed
from atoll.runtime.hooks import NAMES

OUTSIDE = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")


def noting(place, kind, script=""):
    """A hook that appends its kind and the state it got to a file."""
    return {
        "path": "/bin/sh",
        "args": ["sh", "-c", f"{{ echo {kind}; cat; echo; }} >> {place}; {script}"],
        "env": [f"KIND={kind}", "PATH=/bin:/usr/bin"],
    }


def set_hooks(**hooks):
    return lambda config: config.update(hooks=hooks)


def notes(place):
    lines = place.read_text().split("\n")
    return [(kind, json.loads(state)) for kind, state in zip(lines[::2], lines[1::2], strict=False)]


async def there(place):
    for _ in range(500):
        if place.exists():
            return
        await asyncio.sleep(0.01)


def test_order_and_state(any_box, tmp_path):
    place = tmp_path / "notes"

    async def body(box):
        hooks = {kind: [noting(place, kind)] for kind in OUTSIDE}
        name = box.bundle(["sleep", "100"], edit=set_hooks(**hooks), annotations={"org.example": "kept"})
        pid = await box.start(name)
        begun = notes(place)
        assert [kind for kind, _ in begun] == ["prestart", "createRuntime", "createContainer", "poststart"]
        for kind, state in begun:
            assert state["id"] == name
            assert state["annotations"]["org.example"] == "kept"
            if kind != "createContainer":  # runc gives the pid that the container itself sees
                assert state["pid"] == pid
            assert json.loads((box.directory(name) / "config.json").read_text())
        assert begun[-1][1]["status"] == ("created" if box.other and box.other.name == "runc" else "running")  # runc 1.1 is early
        await box.runtime.signal(name, 9)
        await asyncio.wait_for(box.runtime.wait(name), 5)
        await box.runtime.delete(name)
        kind, state = notes(place)[-1]
        assert (kind, state["id"], state["status"]) == ("poststop", name, "stopped")

    any_box(body)


def test_where_each_runs(box, tmp_path):
    place = tmp_path / "notes"

    async def body(box):
        look = f"readlink /proc/self/ns/net >> {place}; readlink /proc/self/ns/mnt >> {place}; echo $0 $KIND $HOME >> {place}"
        hooks = {kind: [{"path": "/bin/sh", "args": ["me", "-c", look], "env": [f"KIND={kind}"]}] for kind in OUTSIDE[:4]}
        inside = {"path": "/bin/sh", "args": ["sh", "-c", "echo in $(id -u) $(ls -d /bin) > /tmp/inside"]}
        name = box.bundle(["cat", "/tmp/inside"], user="app", edit=set_hooks(**hooks, startContainer=[inside]))
        await box.start(name)
        await asyncio.wait_for(box.runtime.wait(name), 5)
        assert box.output(name) == "in 1000 /bin\n"
        lines = place.read_text().splitlines()
        found = {lines[index + 2]: lines[index : index + 2] for index in range(0, len(lines), 3)}
        host = [os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/mnt")]
        assert found["me prestart"] == found["me createRuntime"] == found["me poststart"] == host
        net, mnt = found["me createContainer"]
        assert net != host[0]
        assert mnt != host[1]

    box(body)


def test_what_createcontainer_changes_is_seen_inside(box, tmp_path):
    async def body(box):
        name = box.bundle(["cat", "/etc/by-hook"])
        config = json.loads((box.directory(name) / "config.json").read_text())
        config["root"]["path"] = "upper"  # where the overlay is mounted
        script = 'cat > /dev/null; echo made > "$PWD/upper/etc/by-hook"'
        config["hooks"] = {"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
        (box.directory(name) / "config.json").write_text(json.dumps(config))
        await box.start(name)
        await asyncio.wait_for(box.runtime.wait(name), 5)
        assert box.output(name) == "made\n"

    box(body)


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"])
def test_a_failure_ends_the_start(box, tmp_path, kind):
    place = tmp_path / "notes"

    async def body(box):
        failing = {"path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 3"]}
        hooks = {kind: [failing], "poststop": [noting(place, "poststop")]}
        with pytest.raises(StartFailed, match=rf"error running {kind} hook #0 \(/bin/sh\): exit status 3, output: because"):
            await box.start(box.bundle(["sleep", "100"], edit=set_hooks(**hooks)))
        assert await box.runtime.list() == []
        await there(place)
        assert [kind for kind, _ in notes(place)] == ["poststop"]
        assert (await box.run(["true"]))[0].code == 0

    box(body)


def test_a_failing_createruntime_hook_with_any_runtime(any_box):
    async def body(box):
        with pytest.raises(StartFailed, match="hook"):
            await box.run(["true"], edit=set_hooks(createRuntime=[{"path": "/bin/false"}]))
        assert await box.runtime.list() == []

    any_box(body)


def test_a_failing_poststop_hook_stops_nothing(box, tmp_path):
    place = tmp_path / "notes"

    async def body(box):
        hooks = {"poststop": [{"path": "/bin/false"}, {"path": "/no/such"}, noting(place, "last")]}
        assert (await box.run(["true"], edit=set_hooks(**hooks)))[0].code == 0
        assert [kind for kind, _ in notes(place)] == ["last"]
        log = (box.instance.logs / "keeper.log").read_text()
        assert "poststop hook #0 (/bin/false): exit status 1" in log
        assert "poststop hook #1 (/no/such): No such file or directory" in log

    box(body)


def test_a_timeout(box):
    async def body(box):
        slow = {"path": "/bin/sh", "args": ["sh", "-c", "sleep 100 & wait"], "env": ["PATH=/bin"], "timeout": 1}
        begin = time.monotonic()
        with pytest.raises(StartFailed, match="did not end within its timeout of 1 s"):
            await box.run(["true"], edit=set_hooks(createRuntime=[slow]))
        assert time.monotonic() - begin < 5

    box(body)


def test_much_output_does_not_block(box):
    async def body(box):
        loud = {"path": "/bin/sh", "args": ["sh", "-c", "head -c 1000000 /dev/zero; exit 0"], "env": ["PATH=/bin:/usr/bin"], "timeout": 10}
        assert (await box.run(["true"], edit=set_hooks(prestart=[loud], startContainer=[loud])))[0].code == 0

    box(body)


def test_a_program_that_cannot_be_executed(box, tmp_path):
    """Poststart hooks do not run then, poststop hooks do."""
    place = tmp_path / "notes"

    async def body(box):
        hooks = {kind: [noting(place, kind)] for kind in ("poststart", "poststop")}
        with pytest.raises(StartFailed, match="exec format error"):
            await box.run(["garbage"], edit=set_hooks(**hooks))
        await there(place)
        assert [kind for kind, _ in notes(place)] == ["poststop"]

    box(body)


def test_hooks_beside_an_init(box, tmp_path):
    place = tmp_path / "notes"

    async def body(box):
        hooks = {kind: [noting(place, kind)] for kind in OUTSIDE}
        assert (await box.run(["sh", "-c", "exit 4"], init=True, edit=set_hooks(**hooks)))[0].code == 4
        assert [kind for kind, _ in notes(place)] == list(OUTSIDE)

    box(body)


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ({"prestart": [{"path": "relative"}]}, "prestart hook #0: its path must be absolute"),
        ({"nosuch": []}, "there is no hook nosuch"),
        ({"poststop": [{"path": "/x", "timeout": 0}]}, "timeout must be"),
        ({"poststop": [{"path": "/x", "args": "y"}]}, "lists of strings"),
        ([1], "hooks must be an object"),
    ],
)
def test_hooks_that_are_none(box, hooks, message):
    async def body(box):
        with pytest.raises(InvalidInput, match=message):
            await box.run(["true"], edit=lambda config: config.update(hooks=hooks))

    box(body)


def test_all_six_are_known():
    assert set(OUTSIDE) | {"startContainer"} == set(NAMES)
