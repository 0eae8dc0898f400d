"""Nothing done inside a root ends outside it."""

from __future__ import annotations

import errno
import os

import pytest

from atoll.kernel import inroot
from atoll.kernel.openat2 import O_PATH


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root" / "dir").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "dir" / "file").write_text("inside")
    fd = os.open(tmp_path / "root", O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def resolved(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.parametrize("link", ["/outside", "../../../outside", "{tmp}/outside"])
def test_directories_through_links_stay_inside(root, tmp_path, link):
    os.symlink(link.format(tmp=tmp_path), tmp_path / "root" / "link")
    made = resolved(inroot.make_directory(root, "/link/a/b"))
    assert made.startswith(f"{tmp_path}/root/")
    assert made.endswith("/a/b")
    assert list((tmp_path / "outside").iterdir()) == []


def test_files(root, tmp_path):
    assert resolved(inroot.make_file(root, "/new/dirs/file")) == f"{tmp_path}/root/new/dirs/file"
    assert inroot.read(root, "../../dir/file", 3) == b"ins"
    inroot.write(root, "/dir/file", b"IN")
    assert (tmp_path / "root" / "dir" / "file").read_text() == "INside"
    os.symlink("/proc/self/root", tmp_path / "root" / "magic")
    with pytest.raises(FileNotFoundError):
        inroot.read(root, "/magic/etc/passwd", 10)


def test_a_component_that_is_no_directory(root):
    with pytest.raises(NotADirectoryError):
        inroot.make_directory(root, "/dir/file/below")


def test_a_fifo_is_not_read(root, tmp_path):
    os.mkfifo(tmp_path / "root" / "fifo")
    with pytest.raises(FileNotFoundError):
        inroot.read(root, "/fifo", 10)


def test_link_loops_end(root, tmp_path):
    os.symlink("loop", tmp_path / "root" / "loop")
    with pytest.raises(OSError, match="symbolic links") as caught:
        inroot.make_directory(root, "/loop/x")
    assert caught.value.errno == errno.ELOOP


def test_parent_and_name(root, tmp_path):
    parent, name = inroot.make_parent(root, "/dev/sub/node")
    assert (resolved(parent), name) == (f"{tmp_path}/root/dev/sub", "node")
