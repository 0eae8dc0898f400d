"""The extractor: what it makes, and what no archive gets it to do. Numbers are those of the hostile cases, area A."""

from __future__ import annotations

import os
import stat
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from atoll.errors import InvalidInput, LimitExceeded
from atoll.images.extract import LAYER, Policy, extract_tar
from atoll.images.tar import Entry, Kind, TarError
from atoll.images.tarheader import TRAILER, encode
from atoll.images.treewalk import is_whiteout
from image_harness import member, tar_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


def extract(root: Path, tar: bytes, policy: Policy = LAYER, lowers: tuple[Path, ...] = ()) -> int:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return extract_tar([tar], fd, policy, lowers=lowers).size
    finally:
        os.close(fd)


def test_makes_every_kind_with_its_attributes(root: Path):
    size = extract(
        root,
        tar_of(
            member("d", tarfile.DIRTYPE, mode=0o2750, uid=5, gid=6, mtime=1000),
            ("d/f", b"content"),
            member("d/suid", tarfile.REGTYPE, mode=0o4755, uid=7, gid=8, mtime=2000),
            member("s", tarfile.SYMTYPE, "/nowhere", uid=9, mtime=3000),
            member("h", tarfile.LNKTYPE, "d/f"),
            member("p", tarfile.FIFOTYPE, mode=0o622),
            member("c", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
        ),
    )
    assert size == 7
    d = (root / "d").stat()
    assert (stat.S_IMODE(d.st_mode), d.st_uid, d.st_gid, d.st_mtime) == (0o2750, 5, 6, 1000)
    suid = (root / "d/suid").stat()
    assert (stat.S_IMODE(suid.st_mode), suid.st_uid, suid.st_gid, suid.st_mtime) == (0o4755, 7, 8, 2000)
    s = (root / "s").lstat()
    assert (os.readlink(root / "s"), s.st_uid, s.st_mtime) == ("/nowhere", 9, 3000)
    assert (root / "h").stat().st_ino == (root / "d/f").stat().st_ino
    assert stat.S_ISFIFO((root / "p").stat().st_mode)
    assert (root / "c").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE((root / "c").stat().st_mode) == 0o666


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "a/../../x", "..", "/../x"])
def test_a1_climbing_names_are_refused(root: Path, name: str):
    with pytest.raises(InvalidInput, match="climbs out of the root"):
        extract(root, tar_of((name, b"x")))
    assert sorted(root.parent.iterdir()) == [root]


def test_a2_absolute_names_land_inside(root: Path):
    extract(root, tar_of(("/etc/passwd", b"x"), ("//b//./c/../d", b"y")))
    assert (root / "etc/passwd").read_bytes() == b"x"
    assert (root / "b/d").read_bytes() == b"y"


@pytest.mark.parametrize("absolute", [True, False])
def test_a3_symlinks_lead_nowhere_outside(root: Path, absolute: bool):
    outside = root.parent / "out"
    outside.mkdir()
    link = str(outside) if absolute else "../out"
    with suppress(InvalidInput):
        extract(root, tar_of(member("a", tarfile.SYMTYPE, link), ("a/f", b"x")))
    assert list(outside.iterdir()) == []


def test_a3_symlinks_inside_are_followed_as_a_container_would(root: Path):
    extract(root, tar_of(member("usr/lib", tarfile.DIRTYPE, mode=0o755), member("lib", tarfile.SYMTYPE, "/usr/lib"), ("lib/x.so", b"x")))
    assert (root / "usr/lib/x.so").read_bytes() == b"x"


def test_a4_a_directory_swapped_for_a_symlink(root: Path):
    """The parent is known and open when the archive puts a symlink in its place."""
    outside = root.parent / "out"
    outside.mkdir()
    tar = tar_of(member("a", tarfile.DIRTYPE, mode=0o755), ("a/one", b"1"), member("a", tarfile.SYMTYPE, str(outside)), ("a/two", b"2"))
    with pytest.raises(InvalidInput, match="a/two"):
        extract(root, tar)
    assert list(outside.iterdir()) == []


def test_a5_hard_link_through_a_symlink(root: Path):
    (root.parent / "shadow").write_bytes(b"secret")
    with pytest.raises(InvalidInput, match="hard link"):
        extract(root, tar_of(member("a", tarfile.SYMTYPE, str(root.parent)), member("h", tarfile.LNKTYPE, "a/shadow")))
    assert (root.parent / "shadow").stat().st_nlink == 1


@pytest.mark.parametrize("target", ["missing", "../shadow", "/etc/hostname", "h", "d"])
def test_a7_hard_links_to_nothing_inside(root: Path, target: str):
    (root.parent / "shadow").write_bytes(b"secret")
    with pytest.raises(InvalidInput, match="hard link"):
        extract(root, tar_of(member("d", tarfile.DIRTYPE), member("h", tarfile.LNKTYPE, target)))
    assert (root.parent / "shadow").stat().st_nlink == 1


def test_hard_link_to_a_symlink_links_the_symlink(root: Path):
    extract(root, tar_of(member("s", tarfile.SYMTYPE, "/etc/passwd"), member("h", tarfile.LNKTYPE, "s")))
    assert os.readlink(root / "h") == "/etc/passwd"


def test_a_hard_links_own_attributes_count_as_under_docker(root: Path):
    extract(
        root,
        tar_of(
            member("f", tarfile.REGTYPE, mode=0o600, mtime=1000),
            member("s", tarfile.SYMTYPE, "f", mtime=1000),
            member("h", tarfile.LNKTYPE, "f", mode=0o4755, uid=3, mtime=2000),
            member("t", tarfile.LNKTYPE, "s", mode=0o600, uid=4, mtime=2000),
        ),
    )
    f, s = (root / "f").stat(), (root / "s").lstat()
    assert (stat.S_IMODE(f.st_mode), f.st_uid, f.st_mtime, f.st_nlink) == (0o4755, 3, 2000, 2)
    assert (s.st_uid, s.st_mtime, s.st_nlink) == (4, 1000, 2)


def test_hard_link_into_a_lower_layer_is_copied(root: Path):
    lower = root.parent / "lower"
    lower.mkdir()
    (lower / "f").write_bytes(b"below")
    extract(root, tar_of(member("h", tarfile.LNKTYPE, "f")), lowers=(lower,))
    assert (root / "h").read_bytes() == b"below"
    assert (lower / "f").stat().st_nlink == 1


def test_unsaid_directories_look_like_the_layer_beneath(root: Path):
    lower = root.parent / "lower"
    (lower / "tmp").mkdir(parents=True)
    (lower / "tmp").chmod(0o1777)
    extract(root, tar_of(("tmp/x", b""), ("new/x", b"")), lowers=(lower,))
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE((root / "new").stat().st_mode) == 0o755


def test_a10_a_device_0_0_would_be_a_whiteout(root: Path):
    with pytest.raises(InvalidInput, match="whiteout"):
        extract(root, tar_of(member("c", tarfile.CHRTYPE, devmajor=0, devminor=0)))


def test_a12_bombs_stop_at_the_limit(root: Path):
    with pytest.raises(LimitExceeded, match="f: the archive unpacks to more than there is room for"):
        extract(root, tar_of(("f", bytes(2000))), Policy(bytes_max=1000))
    with pytest.raises(LimitExceeded, match="more than 3 entries"):
        extract(root, tar_of(*[(f"f{n}", b"") for n in range(4)]), Policy(entries_max=3))


def test_a13_a_sparse_file_of_8_eib(root: Path):
    info = member("s", tarfile.REGTYPE, pax_headers={"GNU.sparse.major": "0", "GNU.sparse.map": "", "GNU.sparse.size": str(2**63 - 1)})
    with pytest.raises(LimitExceeded):
        extract(root, tar_of(info))


@pytest.mark.parametrize("sizes", ["9223372036854775808", "-1", "1e9", ""])
def test_a13_impossible_sizes(root: Path, sizes: str):
    info = member("s", tarfile.REGTYPE, pax_headers={"size": sizes})
    with pytest.raises(TarError):
        extract(root, tar_of(info))


def test_a13_odd_but_right(root: Path):
    tar = (
        encode(Entry(b"\xff\xfe", Kind.DIRECTORY, 0o755, 0, 0, 0, -5_000_000_000))
        + encode(Entry(b"u", Kind.FILE, 0o644, 2**32 - 2, 2**32 - 2, 0, 0))
        + encode(Entry(b"u", Kind.FILE, 0o600, 1, 1, 0, 0))
        + TRAILER
    )
    extract(root, tar)
    assert os.stat(os.fsencode(root) + b"/\xff\xfe").st_mtime == -5
    assert (root / "u").stat().st_uid == 1


@pytest.mark.parametrize("name", ["n" * 300, "/".join(["d" * 200] * 25)])
def test_a13_names_too_long_for_the_kernel(root: Path, name: str):
    with pytest.raises(InvalidInput, match="File name too long"):
        extract(root, tar_of((name, b"")))


def test_xattrs_for_overlayfs_and_the_kernel_are_not_taken(root: Path):
    notes = {"user.note": "kept", "trusted.overlay.opaque": "y", "user.overlay.opaque": "y", "security.selinux": "x", "trusted.x": "y"}
    info = member("f", tarfile.REGTYPE, pax_headers={f"SCHILY.xattr.{key}": value for key, value in notes.items()})
    extract(root, tar_of(info))
    assert "user.note" in os.listxattr(root / "f")
    assert not {"trusted.overlay.opaque", "user.overlay.opaque", "trusted.x"} & set(os.listxattr(root / "f"))


# whiteouts -------------------------------------------------------------------------------------------------------------------------------
def test_whiteouts_become_devices_and_opaque_directories_an_xattr(root: Path):
    extract(root, tar_of(("a/.wh.gone", b""), ("b/.wh..wh..opq", b""), ("b/new", b""), (".wh..wh.plnk/x", b"")))
    assert is_whiteout((root / "a/gone").lstat())
    assert os.getxattr(root / "b", "trusted.overlay.opaque") == b"y"
    assert (root / "b/new").exists()


def test_a_whiteout_hides_only_what_is_below(root: Path):
    extract(root, tar_of(("f", b"new"), (".wh.f", b""), ("d/x", b"new"), (".wh.d", b"")))
    assert (root / "f").read_bytes() == b"new"
    assert (root / "d/x").read_bytes() == b"new"
    assert os.getxattr(root / "d", "trusted.overlay.opaque") == b"y"


def test_a_file_after_its_whiteout_takes_its_place(root: Path):
    extract(root, tar_of((".wh.f", b""), ("f", b"new"), (".wh.d", b""), ("d/x", b"new"), (".wh.e", b""), member("e", tarfile.DIRTYPE)))
    assert (root / "f").read_bytes() == b"new"
    for name in ("d", "e"):
        assert os.getxattr(root / name, "trusted.overlay.opaque") == b"y"


@pytest.mark.parametrize("name", [".wh.", ".wh...", "a/.wh.."])
def test_whiteouts_of_no_file(root: Path, name: str):
    with pytest.raises(InvalidInput, match="whiteout names no file"):
        extract(root, tar_of((name, b"")))


def test_whiteout_names_stay_names_outside_layers(root: Path):
    extract(root, tar_of((".wh.f", b"x")), Policy())
    assert (root / ".wh.f").read_bytes() == b"x"


# cp and ADD ------------------------------------------------------------------------------------------------------------------------------
def test_owner_into_and_rename(root: Path):
    def rename(name: bytes) -> bytes | None:
        return None if name == b"skip" else name.replace(b"old", b"new", 1)

    tar = tar_of(("old/f", b"1"), ("skip", b"2"), member("old/h", tarfile.LNKTYPE, "old/f"))
    extract(root, tar, Policy(owner=(42, 43), into=b"/srv/data", rename=rename))
    info = (root / "srv/data/new/f").stat()
    assert (info.st_uid, info.st_gid, info.st_nlink) == (42, 43, 2)
    assert not (root / "srv/data/skip").exists()


def test_into_a_symlinked_directory_stays_inside(root: Path):
    outside = root.parent / "out"
    outside.mkdir()
    (root / "evil").symlink_to(outside)
    with pytest.raises(InvalidInput):
        extract(root, tar_of(("f", b"x")), Policy(into=b"evil"))
    assert list(outside.iterdir()) == []


def test_keep_directories(root: Path):
    (root / "d").mkdir()
    (root / "f").write_bytes(b"")
    with pytest.raises(InvalidInput, match="cannot overwrite directory with non-directory"):
        extract(root, tar_of(("d", b"")), Policy(keep_directories=True))
    with pytest.raises(InvalidInput, match="cannot overwrite non-directory with directory"):
        extract(root, tar_of(member("f", tarfile.DIRTYPE)), Policy(keep_directories=True))


def test_replacing_a_tree_forgets_it(root: Path):
    tar = tar_of(
        member("d", tarfile.DIRTYPE, mode=0o700, mtime=5),
        member("d/e", tarfile.DIRTYPE, mode=0o700, mtime=5),
        ("d/e/f", b"1"),
        ("d", b"now a file"),
        ("x", b"2"),
    )
    extract(root, tar)
    assert (root / "d").read_bytes() == b"now a file"
    assert (root / "x").read_bytes() == b"2"
