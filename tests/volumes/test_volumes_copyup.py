"""Copying an image's content into a new volume."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from atoll.volumes import copy_up


@pytest.fixture
def trees(instance):
    source, target = instance.home / "source", instance.home / "target"
    source.mkdir()
    target.mkdir()
    return source, target


def copied(source, target) -> bool:
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return copy_up(fd, target)
    finally:
        os.close(fd)


def test_everything_a_file_is(trees):
    source, target = trees
    (source / "sub").mkdir(mode=0o750)
    (source / "sub" / "file").write_bytes(b"content" * 100_000)
    os.link(source / "sub" / "file", source / "twin")
    (source / "link").symlink_to("/etc/passwd")
    (source / "dangling").symlink_to("nowhere")
    os.mkfifo(source / "fifo", 0o640)
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (source / "tool").write_text("#!")
    os.chown(source / "tool", 1000, 1001)
    (source / "tool").chmod(0o4755)
    os.setxattr(source / "tool", "trusted.mark", b"1")
    os.setxattr(source / "tool", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(source / "sub", "trusted.overlay.opaque", b"y")
    os.utime(source / "sub", ns=(1, 1_000_000_000))
    os.chown(source, 1000, 1000)
    source.chmod(0o770)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(source / "socket"))
        assert copied(source, target)
    assert (target / "sub" / "file").read_bytes() == b"content" * 100_000
    assert (target / "twin").stat().st_ino == (target / "sub" / "file").stat().st_ino
    assert (target / "link").readlink().as_posix() == "/etc/passwd"
    assert (target / "dangling").is_symlink()
    assert stat.S_ISFIFO((target / "fifo").stat().st_mode)
    assert (target / "null").stat().st_rdev == os.makedev(1, 3)
    tool = (target / "tool").stat()
    assert (tool.st_uid, tool.st_gid, stat.S_IMODE(tool.st_mode)) == (1000, 1001, 0o4755)
    assert os.getxattr(target / "tool", "trusted.mark") == b"1"
    assert len(os.getxattr(target / "tool", "security.capability")) == 20
    assert os.listxattr(target / "sub") == []
    assert (target / "sub").stat().st_mtime_ns == 1_000_000_000
    assert stat.S_IMODE((target / "sub").stat().st_mode) == 0o750
    assert (target.stat().st_uid, stat.S_IMODE(target.stat().st_mode)) == (1000, 0o770)
    assert not (target / "socket").exists()


def test_a_volume_with_content_is_left_alone(trees):
    source, target = trees
    (source / "file").write_text("image")
    (target / "mine").write_text("user")
    assert not copied(source, target)
    assert os.listdir(target) == ["mine"]


def test_an_empty_directory_gives_its_owner(trees):
    source, target = trees
    os.chown(source, 1000, 100)
    assert copied(source, target)
    assert (target.stat().st_uid, target.stat().st_gid) == (1000, 100)


def test_a_deep_tree(trees):
    source, target = trees
    fd = os.open(source, os.O_RDONLY)
    for _ in range(1500):  # beyond Python's recursion limit and PATH_MAX
        os.mkdir("directory", dir_fd=fd)
        below = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert copied(source, target)
    from atoll.volumes.removal import remove_tree

    remove_tree(source)
    remove_tree(target)
