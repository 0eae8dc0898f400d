"""Packing: what overlay leaves becomes a layer, and unpacked again is the same."""

from __future__ import annotations

import os
import socket
import stat
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from atoll.errors import NotSupported
from atoll.images.extract import LAYER, extract_tar
from atoll.images.pack import Packed, pack_path, pack_tree
from atoll.images.treewalk import is_whiteout


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    root = tmp_path / "upper"
    (root / "b/opaque").mkdir(parents=True)
    os.setxattr(root / "b/opaque", "trusted.overlay.opaque", b"y")
    (root / "b/opaque/kept").write_bytes(b"kept")
    os.mknod(root / "b/gone", stat.S_IFCHR, 0)
    (root / "a").write_bytes(b"x" * 600_000)
    (root / "z").hardlink_to(root / "a")
    (root / "s").symlink_to("/etc/passwd")
    os.mkfifo(root / "p")
    os.setxattr(root / "a", "user.note", b"hi")
    os.setxattr(root / "b", "trusted.overlay.origin", b"??")
    (root / ("long" * 40)).write_bytes(b"")
    return root


def packed(root: Path, **options) -> bytes:
    fd = os.open(root, os.O_RDONLY)
    try:
        return b"".join(pack_tree(fd, **options))
    finally:
        os.close(fd)


def test_whiteouts_and_order(upper: Path):
    with tarfile.open(fileobj=BytesIO(packed(upper, layer=True))) as archive:
        members = {info.name: info for info in archive.getmembers()}
    assert list(members) == ["a", "b", "b/.wh.gone", "b/opaque", "b/opaque/.wh..wh..opq", "b/opaque/kept", "long" * 40, "p", "s", "z"]
    assert members["z"].islnk()
    assert members["z"].linkname == "a"
    assert members["a"].pax_headers["SCHILY.xattr.user.note"] == "hi"
    assert "SCHILY.xattr.trusted.overlay.origin" not in members["b"].pax_headers


def test_unpacked_again_it_packs_to_the_same_bytes(upper: Path, tmp_path: Path):
    first = packed(upper, layer=True)
    again = tmp_path / "again"
    again.mkdir()
    fd = os.open(again, os.O_RDONLY)
    extract_tar([first], fd, LAYER)
    os.close(fd)
    assert is_whiteout((again / "b/gone").lstat())
    assert os.getxattr(again / "b/opaque", "trusted.overlay.opaque") == b"y"
    assert packed(again, layer=True) == first


def test_ignored_paths_and_sums(upper: Path):
    sums = Packed()
    data = packed(upper, layer=True, ignore=("b", "z"), packed=sums)
    with tarfile.open(fileobj=BytesIO(data)) as archive:
        assert archive.getnames() == ["a", "long" * 40, "p", "s"]
    assert (sums.size, sums.tar_size) == (600_000, len(data))


def test_sockets_are_left_out(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        (tmp_path / "file").write_bytes(b"")
        with tarfile.open(fileobj=BytesIO(packed(tmp_path))) as archive:
            assert archive.getnames() == ["file"]


def test_a_file_that_shrinks_is_filled_and_one_that_grows_is_cut(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"a" * 1_000_000)
    (tmp_path / "b").write_bytes(b"b" * 10)
    fd = os.open(tmp_path, os.O_RDONLY)
    chunks = pack_tree(fd)
    first = next(chunks)
    os.truncate(tmp_path / "a", len(first))
    with (tmp_path / "b").open("ab") as file:
        file.write(b"more")
    os.close(fd)
    with tarfile.open(fileobj=BytesIO(first + b"".join(chunks))) as archive:
        assert [info.size for info in archive.getmembers()] == [1_000_000, 14]


def test_an_upper_that_needs_its_lower_is_refused(tmp_path: Path):
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", "trusted.overlay.redirect", b"/x")
    with pytest.raises(NotSupported, match="redirect_dir=off"):
        packed(tmp_path, layer=True)


def test_pack_path(upper: Path):
    fd = os.open(upper, os.O_RDONLY)
    try:
        with tarfile.open(fileobj=BytesIO(b"".join(pack_path(fd, "b", "name")))) as archive:
            assert archive.getnames() == ["name", "name/gone", "name/opaque", "name/opaque/kept"]
        with tarfile.open(fileobj=BytesIO(b"".join(pack_path(fd, "/s", "s")))) as archive:
            assert archive.getmembers()[0].linkname == "/etc/passwd"
        with tarfile.open(fileobj=BytesIO(b"".join(pack_path(fd, "/", "root")))) as archive:
            assert archive.getnames()[:2] == ["root", "root/a"]
        with pytest.raises(FileNotFoundError):
            pack_path(fd, "nothing", "x")
    finally:
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) < 200
