"""The tar reader against archives of GNU tar and Python, and against damage."""

from __future__ import annotations

import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.images.tar import BLOCK, Entry, Kind, TarError
from atoll.images.tarheader import TRAILER, encode, padding
from atoll.images.tarreader import TarReader
from image_harness import member, tar_of


def read(data: bytes, size: int = 1000) -> list[tuple[Entry, bytes]]:
    reader = TarReader(data[at : at + size] for at in range(0, len(data), size))
    return [(entry, b"".join(bytes(piece) for piece in reader.data())) for entry in reader]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    deep = root / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / ("f" * 120)).write_bytes(b"deep")
    (root / "ümläut").write_bytes(b"utf")
    (root / "link").symlink_to("x" * 150)
    (root / "hard").write_bytes(b"1")
    (root / "hard2").hardlink_to(root / "hard")
    (root / "big").write_bytes(b"z" * 3000)
    return root


@pytest.mark.parametrize("form", ["gnu", "pax", "oldgnu"])
def test_reads_what_gnu_tar_writes(tree: Path, form: str):
    data = subprocess.run(["tar", f"--format={form}", "-C", tree, "-cf", "-", "."], check=True, capture_output=True).stdout
    entries = {entry.name.rstrip(b"/").removeprefix(b"./"): (entry, content) for entry, content in read(data)}
    deep = b"/".join([b"d" * 90, b"e" * 90, b"f" * 120])
    assert entries[deep][1] == b"deep"
    assert entries["ümläut".encode()][1] == b"utf"
    assert entries[b"link"][0].link == b"x" * 150
    assert {entries[b"hard"][0].kind, entries[b"hard2"][0].kind} == {Kind.FILE, Kind.LINK}
    assert entries[b"big"][1] == b"z" * 3000
    assert entries[b"big"][0].mtime_ns // 10**9 == int((tree / "big").stat().st_mtime)


@pytest.mark.parametrize("form", ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax --sparse-version=1.0"])
def test_reads_sparse_files(tmp_path: Path, form: str):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for at in range(10):
            file.seek(at * 1_000_000)
            file.write(b"%d" % at * 10)
        file.truncate(20_000_000)
    command = ["tar", *f"--format={form}".split(), "--sparse", "-C", tmp_path, "-cf", "-", "sparse"]
    [(entry, content)] = read(subprocess.run(command, check=True, capture_output=True).stdout)
    assert entry.name == b"sparse"
    assert entry.size == 20_000_000
    assert entry.sparse is not None
    whole = bytearray(entry.size)
    at = 0
    for offset, length in entry.sparse:
        whole[offset : offset + length] = content[at : at + length]
        at += length
    assert whole == path.read_bytes()


def test_reads_big_numbers_and_early_times():
    info = member("x", tarfile.REGTYPE, uid=4_000_000_000, mtime=-5)
    [(entry, _)] = read(tar_of(info))
    assert entry.uid == 4_000_000_000
    assert entry.mtime_ns == -5 * 10**9


def test_xattrs_come_from_pax_records(tmp_path: Path):
    info = member("x", tarfile.REGTYPE, pax_headers={"SCHILY.xattr.user.note": "hello"})
    [(entry, _)] = read(tar_of(info))
    assert entry.xattrs == {"user.note": b"hello"}


def header(**changes: bytes) -> bytes:
    """A header with some raw fields changed and its checksum set right."""
    block = bytearray(encode(Entry(b"x", Kind.FILE, 0o644, 0, 0, 0, 0)))
    places = {"size": 124, "flag": 156, "uid": 108, "mtime": 136}
    for key, value in changes.items():
        block[places[key] : places[key] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_a_last_member_without_padding():
    data = header(size=b"00000000003\0") + b"abc"
    (entry,) = TarReader([data])
    assert entry.size == 3
    with pytest.raises(TarError, match="truncated"):
        read(data[:-1])
    with pytest.raises(TarError, match="truncated"):
        read(data + b"\0")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(size=b"00000001000\0"), "truncated"),
        (header(size=b"zzzzzzzzzzz\0"), "where a number belongs"),
        (header(size=b"\xff" + b"\xff" * 11), "negative size"),
        (header(size=b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "63 bits"),
        (header(flag=b"Q"), "unknown type"),
        (header(flag=b"x", size=b"77777777777\0"), "extended header of"),
        (header(uid=b"\xff" * 8), "no user or group id"),
        (b"\x01" * BLOCK, "not a tar archive"),
        (header()[:300], "truncated"),
    ],
)
def test_damage_is_named(data: bytes, message: str):
    with pytest.raises(TarError, match=message):
        read(data + TRAILER if len(data) == BLOCK and message != "truncated" else data)


@pytest.mark.parametrize(
    "records",
    [b"no", b"99 a=b\n", b"5 a=b", b"0 a=b\n", b"6 ab=\n6", b"3 \n", b"12 size=-00\n", b"13 mtime=1x\n\n", b"17 uid=99999999\n99"],
)
def test_broken_pax_records(records: bytes):
    data = encode_special(records) + header() + TRAILER
    with pytest.raises(TarError):
        read(data)


def encode_special(records: bytes) -> bytes:
    block = bytearray(encode(Entry(b"pax", Kind.FILE, 0o644, 0, 0, len(records), 0)))
    block[156:157] = b"x"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + records + padding(len(records))


@given(st.binary(max_size=2000))
def test_noise_is_refused_or_read(data: bytes):
    with suppress(TarError):
        read(data)


SAMPLE = tar_of(("a/b", b"x" * 700), member("n" * 130, tarfile.SYMTYPE, "t" * 120), member("d", tarfile.DIRTYPE))


@given(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255))
def test_one_changed_byte_is_refused_or_read(at: int, value: int):
    damaged = SAMPLE[:at] + bytes([value]) + SAMPLE[at + 1 :]
    with suppress(TarError):
        read(damaged)


names = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name and not name.endswith(b"/"))


@given(
    name=names,
    uid=st.integers(0, 2**32 - 2),
    mtime=st.integers(-(10**10), 10**11),
    content=st.binary(max_size=600),
    xattr=st.binary(max_size=50),
)
def test_what_we_write_we_read(name: bytes, uid: int, mtime: int, content: bytes, xattr: bytes):
    entry = Entry(name, Kind.FILE, 0o4755, uid, 0, len(content), mtime * 10**9, xattrs={"user.x": xattr})
    entry.stored = len(content)
    assert read(encode(entry) + content + padding(len(content)) + TRAILER) == [(entry, content)]
