"""The CRI log: records, cuts, partial lines, rotation, hostile bytes."""

from __future__ import annotations

import random
import re

from atoll.runtime.logs import LINE_MAX, LogFile

RECORD = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (stdout|stderr) ([FP]) (.*)", re.DOTALL)


def records(path):
    return [RECORD.fullmatch(line).groups()[1:] for line in path.read_bytes().split(b"\n")[:-1]]


def joined(path, stream=b"stdout"):
    return b"".join(text + (b"\n" if tag == b"F" else b"") for name, tag, text in records(path) if name == stream)


def test_lines_become_records(tmp_path):
    log = LogFile(str(tmp_path / "log"), None, None)
    log.write("stdout", b"one\ntw")
    log.write("stderr", b"other\n")
    log.write("stdout", b"o\n\nthree")
    log.close()
    assert records(tmp_path / "log") == [
        (b"stdout", b"F", b"one"),
        (b"stderr", b"F", b"other"),
        (b"stdout", b"F", b"two"),
        (b"stdout", b"F", b""),
        (b"stdout", b"P", b"three"),
    ]


def test_a_long_line_is_cut(tmp_path):
    log = LogFile(str(tmp_path / "log"), None, None)
    for _ in range(64):
        log.write("stdout", b"x" * 100_000)
        assert sum(map(len, log._partial.values())) <= LINE_MAX
    log.write("stdout", b"end\nnext\n")
    log.close()
    found = records(tmp_path / "log")
    assert {tag for _, tag, _ in found[:-2]} == {b"P"}
    assert max(len(text) for _, _, text in found) == LINE_MAX
    assert joined(tmp_path / "log") == b"x" * 6_400_000 + b"end\nnext\n"


def test_what_is_written_can_be_read_back(tmp_path):
    chooser = random.Random(7)
    data = b"".join(
        bytes(chooser.choices(range(256), k=chooser.choice((0, 5, 300, 40_000)))) + b"\n" * chooser.randrange(3) for _ in range(200)
    )
    log = LogFile(str(tmp_path / "log"), None, None)
    position = 0
    while position < len(data):
        size = chooser.choice((1, 100, 4096, 262_144))
        log.write("stdout", data[position : position + size])
        position += size
    log.close()
    assert joined(tmp_path / "log") == data


def test_rotation_keeps_whole_records(tmp_path):
    log = LogFile(str(tmp_path / "log"), 1000, 3)
    for number in range(100):
        log.write("stdout", f"line {number:03d}\n".encode())
    log.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    lines = b"".join(joined(tmp_path / name) for name in ("log.2", "log.1", "log")).decode().split()[1::2]
    assert lines == [f"{number:03d}" for number in range(100 - len(lines), 100)]


def test_a_batch_larger_than_a_file_is_spread_over_files(tmp_path):
    log = LogFile(str(tmp_path / "log"), 1000, 3)
    log.write("stdout", b"".join(b"line %03d\n" % number for number in range(50)) + b"x" * 3000 + b"\nlast\n")
    log.close()
    assert [(tmp_path / name).stat().st_size <= 1000 for name in ("log.2", "log.1", "log")] == [True, False, True]
    assert joined(tmp_path / "log.2").endswith(b"line 049\n")
    assert joined(tmp_path / "log.1") == b"x" * 3000 + b"\n"
    assert joined(tmp_path / "log") == b"last\n"


def test_a_log_that_cannot_be_moved_grows_on(tmp_path):
    (tmp_path / "log.1" / "in the way").mkdir(parents=True)
    log = LogFile(str(tmp_path / "log"), 100, 2)
    log.write("stdout", b"line\n" * 10)
    log.close()
    assert joined(tmp_path / "log") == b"line\n" * 10


def test_one_file_starts_afresh(tmp_path):
    log = LogFile(str(tmp_path / "log"), 200, 1)
    for number in range(50):
        log.write("stdout", f"{number}\n".encode())
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert records(tmp_path / "log")[-1][2] == b"49"


def test_appends_to_what_is_there(tmp_path):
    for word in (b"first\n", b"second\n"):
        log = LogFile(str(tmp_path / "log"), None, None)
        log.write("stdout", word)
        log.close()
    assert joined(tmp_path / "log") == b"first\nsecond\n"


def test_a_full_disk_does_not_stop_the_container():
    log = LogFile("/dev/full", None, None)
    log.write("stdout", b"lost\n")
    log.close()
    assert log.lost_bytes > 0
