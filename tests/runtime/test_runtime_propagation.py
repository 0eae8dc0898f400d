"""How mounts spread between a container and the host, and how far read-only reaches."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from atoll.kernel.mounts import mount_of


@pytest.fixture
def shared(tmp_path):
    """A directory that is a shared mount of its own."""
    place = tmp_path / "shared"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    subprocess.run(["mount", "--make-shared", place], check=True)
    (place / "sub").mkdir()
    yield place
    subprocess.run(["umount", "-R", place], check=True)


def spread(config):
    config["linux"]["rootfsPropagation"] = "shared"


def test_a_containers_mount_reaches_the_host_and_goes_on(box, shared):
    async def body(box):
        mount = {"destination": "/mnt", "type": "bind", "source": str(shared), "options": ["rbind", "rshared"]}
        script = "mount -t tmpfs inner /mnt/sub && echo up > /mnt/sub/file"
        await box.sh(script, mounts=[mount], privileged=True, edit=spread)
        assert (shared / "sub" / "file").read_text() == "up\n"
        assert str(box.instance.home) not in await asyncio.to_thread(_mountinfo)  # the root itself was not seen

    box(body)


def test_without_it_nothing_reaches_the_host(box, shared):
    async def body(box):
        mount = {"destination": "/mnt", "type": "bind", "source": str(shared), "options": ["rbind", "rprivate"]}
        await box.sh("mount -t tmpfs inner /mnt/sub && echo up > /mnt/sub/file", mounts=[mount], privileged=True)
        assert not (shared / "sub" / "file").exists()

    box(body)


def test_the_hosts_mounts_reach_a_slave(box, shared):
    async def body(box):
        mount = {"destination": "/mnt", "type": "bind", "source": str(shared), "options": ["rbind", "rslave"]}
        script = "while ! test -e /mnt/sub/file; do sleep 0.01; done; mount -t tmpfs own /mnt/sub && echo mine > /mnt/sub/mine"
        name = box.bundle(["sh", "-c", script], mounts=[mount], privileged=True)
        await box.start(name)
        await asyncio.to_thread(subprocess.run, ["mount", "-t", "tmpfs", "tmpfs", shared / "sub"], check=True)
        (shared / "sub" / "file").touch()
        assert (await asyncio.wait_for(box.runtime.wait(name), 10)).code == 0
        assert not (shared / "sub" / "mine").exists()

    box(body)


@pytest.mark.parametrize(("propagation", "field"), [("shared", "shared:"), ("unbindable", "unbindable"), ("private", ""), ("", "")])
def test_propagation_of_the_root(box, propagation, field):
    async def body(box):
        edit = (lambda config: config["linux"].update(rootfsPropagation=propagation)) if propagation else None
        fields = (await box.sh("grep ' / / ' /proc/self/mountinfo", edit=edit)).partition(" - ")[0].split()[6:]
        assert [word.split(":")[0] for word in fields] == ([field.rstrip(":")] if field else [])

    box(body)


@pytest.mark.parametrize(("option", "below"), [("ro", "written"), ("rro", "refused")])
def test_how_far_read_only_reaches(box, shared, option, below):
    async def body(box):
        await asyncio.to_thread(subprocess.run, ["mount", "-t", "tmpfs", "tmpfs", shared / "sub"], check=True)
        mount = {"destination": "/mnt", "type": "bind", "source": str(shared), "options": ["rbind", "rprivate", option]}
        script = "touch /mnt/x 2>/dev/null && echo written || echo refused; touch /mnt/sub/x 2>/dev/null && echo written || echo refused"
        assert (await box.sh(script, mounts=[mount])).split() == ["refused", below]

    box(body)


def test_the_mount_of_a_path(tmp_path):
    lines = [
        "1 0 0:1 / / rw shared:1 - ext4 x rw",
        "2 1 0:2 / /with\\040space rw master:4 shared:2 - tmpfs x rw",
        "3 1 0:3 / /with rw - tmpfs x rw",
    ]
    (tmp_path / "mountinfo").write_text("\n".join(lines) + "\n")
    assert mount_of("/with space/x", str(tmp_path / "mountinfo")) == ("/with space", {"master", "shared"})
    assert mount_of("/without", str(tmp_path / "mountinfo")) == ("/", {"shared"})
    assert mount_of("/with/x", str(tmp_path / "mountinfo")) == ("/with", frozenset())


def _mountinfo():
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return file.read()
