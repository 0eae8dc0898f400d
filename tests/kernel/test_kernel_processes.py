"""Capabilities, namespaces, mounts and sealed memory, each on a real process."""

from __future__ import annotations

import errno
import os

import pytest

from atoll.errors import InvalidInput, SystemFailure
from atoll.kernel import capabilities, memfd, mounts, pidfd, prctl, processes

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.parametrize(("name", "expected"), [("net_admin", "CAP_NET_ADMIN"), ("CAP_SYS_TIME", "CAP_SYS_TIME"), ("all", "ALL")])
def test_capability_names(name, expected):
    assert capabilities.normalise(name) == expected


def test_unknown_capability():
    with pytest.raises(InvalidInput, match="CAP_FLY"):
        capabilities.normalise("fly")


def test_cut_keeps_the_rules_of_the_sets():
    every = capabilities.mask(capabilities.NAMES)
    wanted = {
        "bounding": ["CAP_CHOWN", "CAP_KILL"],
        "permitted": ["CAP_CHOWN"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_CHOWN", "CAP_SYS_ADMIN"],
        "ambient": ["CAP_CHOWN", "CAP_KILL"],
    }
    sets = capabilities.cut(wanted, every)
    assert capabilities.names(sets["effective"]) == ["CAP_CHOWN"]
    assert capabilities.names(sets["inheritable"]) == ["CAP_CHOWN"]
    assert capabilities.names(sets["ambient"]) == ["CAP_CHOWN"]
    assert capabilities.cut(wanted, 0) == dict.fromkeys(sets, 0)


@needs_root
def test_capabilities_are_set(in_child):
    chown = capabilities.mask(["CAP_CHOWN"])

    def drop():
        capabilities.limit_bounding(chown)
        capabilities.apply(chown, chown, chown)
        capabilities.raise_ambient(chown)
        return capabilities.sets()

    assert in_child(drop) == dict.fromkeys(("inheritable", "permitted", "effective", "bounding", "ambient"), chown)


@needs_root
def test_clone_into_namespaces():
    read_end, write_end = os.pipe()
    pid = processes.clone(processes.NEWPID | processes.NEWUTS | processes.NEWNS)
    if pid == 0:
        os.write(write_end, f"{os.getpid()} {os.readlink('/proc/thread-self/ns/uts')}".encode())
        os._exit(3)
    os.close(write_end)
    with open(read_end, "rb") as answers:
        inner, uts = answers.read().decode().split()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert inner == "1"
    assert uts != os.readlink("/proc/self/ns/uts")


@needs_root
def test_mounts_by_descriptor(in_child, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").touch()

    def mount():
        processes.unshare(processes.NEWNS)
        mounts.propagate("/", mounts.MS_PRIVATE)
        target = os.open(tmp_path / "target", os.O_PATH | os.O_DIRECTORY)
        tree = mounts.clone_tree(str(tmp_path / "source"), recursive=False)
        mounts.set_attributes(tree, add=mounts.ATTR_RDONLY)
        mounts.attach(tree, target, "target")
        seen = os.listdir(tmp_path / "target")
        try:
            (tmp_path / "target" / "new").touch()
        except OSError as error:
            return [seen, error.errno]
        return None

    assert in_child(mount) == [["file"], errno.EROFS]
    assert os.listdir(tmp_path / "target") == []


@needs_root
def test_a_mount_that_fails_names_its_option(in_child):
    def mount():
        try:
            mounts.new_filesystem("tmpfs", [("size", "nonsense")])
        except SystemFailure as error:
            return str(error)
        return ""

    assert in_child(mount) == "mount tmpfs: option size=nonsense: Invalid argument"


def test_sealed_copy(tmp_path):
    (tmp_path / "program").write_bytes(b"#!/bin/sh\n" * 1000)
    fd = memfd.sealed_copy(str(tmp_path / "program"), "test")
    try:
        assert os.pread(fd, 100_000, 0) == b"#!/bin/sh\n" * 1000
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 1)
    finally:
        os.close(fd)


def test_keep_only(in_child):
    def close():
        # pipes for the answer come first; the rest is what a keeper might hold
        kept = os.open("/dev/null", os.O_RDONLY)
        others = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
        answers = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}") and int(name) < kept]
        processes.keep_only({kept, others[2], *answers})
        return [_is_open(fd) for fd in (kept, *others)]

    assert in_child(close) == [True, False, False, True, False, False]


def _is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_not_dumpable(in_child):
    def hide():
        prctl.set_dumpable(dumpable=False)
        return os.stat("/proc/self/exe", follow_symlinks=False).st_uid

    assert in_child(hide) == 0


def test_a_shared_table_outlives_one_of_two(in_child):
    def share():
        read_end, write_end = os.pipe()
        pid = processes.clone(share_files=True)
        if not pid:
            os.write(write_end, str(os.open("/dev/null", os.O_RDONLY)).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        return os.readlink(f"/proc/self/fd/{int(os.read(read_end, 10))}")

    assert in_child(share) == "/dev/null"


def test_how_another_ended():
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], {})
    descriptor = os.pidfd_open(child)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert pidfd.wait_status(descriptor, child) == 7 << 8
        os.waitpid(child, 0)
        assert pidfd.wait_status(descriptor, child) in {7 << 8, None}  # None before Linux 6.15
    finally:
        os.close(descriptor)
