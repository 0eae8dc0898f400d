"""The keeper dies at every single step between a container's pipe and its log: no byte is lost, none comes twice."""

from __future__ import annotations

import contextlib
import os

import pytest

from atoll.runtime import journal as journals
from atoll.runtime.journal import Journal, KeptLog
from atoll.runtime.records import Record

CHUNKS = [b"one\ntw", b"o\n", b"thr", b"ee\nfour\nfive", b"\n" + b"x" * 70 + b"\n", b"no newline", b" yet"]
WHOLE = b"".join(CHUNKS)


class Killed(BaseException):
    pass


class Steps:
    """Lets so many steps happen and dies before, after, or in the middle of the next one."""

    def __init__(self, monkeypatch, count, how):
        self.left = count
        self.is_armed = False
        for owner, names in ((os, ("write", "pwrite", "readv", "replace", "unlink")), (Journal, ("stamp", "writing", "written", "done"))):
            for name in names:
                monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name), name, how))

    def _wrapped(self, real, name, how):
        def step(*arguments):
            if not self.is_armed:
                return real(*arguments)
            self.left -= 1
            if self.left > 0:
                return real(*arguments)
            self.is_armed = False
            if how == "after":
                real(*arguments)
            elif how == "within" and name == "write":
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise Killed

        return step


@pytest.fixture
def kept():
    """Descriptors that outlive a keeper."""
    record, journal, pipe = Record.make({}), Journal(), os.pipe()
    os.set_blocking(pipe[0], False)
    yield record, journal, pipe
    for fd in (record.fd, journal.fd, *pipe):
        os.close(fd)


def text(path):
    data = b""
    for name in (f"{path}.{number}" for number in range(30, 0, -1)):
        with contextlib.suppress(FileNotFoundError), open(name, "rb") as file:
            data += file.read()
    with open(path, "rb") as file:
        data += file.read()
    lines = [line.split(b" ", 3) for line in data.split(b"\n")[:-1]]
    assert all(len(line) == 4 for line in lines), lines
    return b"".join(rest + (b"\n" if tag == b"F" else b"") for _, _, tag, rest in lines)


def keep(path, max_size, record_fd, journal_fd, pipe, *, is_last=False):
    """A keeper's life, from taking over to the end of what there is to read, or of the container."""
    journal, record = Journal(journal_fd), Record.open(record_fd)
    log = KeptLog(path, max_size, 30, journal)
    try:
        log.take_up(record)
        left = journal.left()
        if left is not None and left.record == record.fd:
            log.resume(left)
        while True:
            try:
                log.write("stdout", log.read(pipe, "stdout"))
            except BlockingIOError:
                break
        if is_last:
            log.flush()
    finally:
        if log._fd >= 0:
            os.close(log._fd)


@pytest.mark.parametrize("max_size", [None, 120])
@pytest.mark.parametrize("how", ["before", "within", "after"])
def test_every_step(tmp_path, kept, monkeypatch, max_size, how):
    path = str(tmp_path / "log")
    record, journal, (read_end, write_end) = kept
    steps = Steps(monkeypatch, 0, how)
    expected, deaths = b"", 0
    for number in range(1, 40):
        steps.left = number
        for chunk in CHUNKS:
            os.write(write_end, chunk)
            steps.is_armed = True
            is_last = chunk is CHUNKS[-1]
            try:
                keep(path, max_size, record.fd, journal.fd, read_end, is_last=is_last)
            except Killed:
                deaths += 1
                steps.left, steps.is_armed = deaths % 9, True  # and who takes over dies soon, too
                with contextlib.suppress(Killed):
                    keep(path, max_size, record.fd, journal.fd, read_end, is_last=is_last)
                steps.is_armed = False
                keep(path, max_size, record.fd, journal.fd, read_end, is_last=is_last)
                steps.left = number
            steps.is_armed = False
        expected += WHOLE
    assert deaths > 20
    found = text(path)
    assert found == expected if max_size is None else expected.endswith(found)


def test_a_read_that_did_not_take_place(kept):
    record, journal, (read_end, write_end) = kept
    os.write(write_end, b"a line that is long enough\n")
    journal.read(read_end, record, "stdout")
    assert Journal(journal.fd).left().data == b"a line that is long enough\n"
    journals._NUMBER.pack_into(journal._memory, journals._READ_AT, -1)  # killed before it could be noted
    assert Journal(journal.fd).left().data == b"a line that is long enough\n"
    journal._memory[11:27] = journal._secret  # killed before it took place
    assert Journal(journal.fd).left() is None
    journal.done()
    assert Journal(journal.fd).left() is None


def test_the_end_and_nothing_yet(kept):
    record, journal, (read_end, _) = kept
    with pytest.raises(BlockingIOError):
        journal.read(read_end, record, "stdout")
    closed, other = os.pipe()
    os.close(other)
    assert journal.read(closed, record, "stdout") == b""
    os.close(closed)
