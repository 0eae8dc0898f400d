"""Docker's frames, cut anywhere, come out whole and in order."""

from __future__ import annotations

import pytest

from atoll.cli import terminal

STREAM = [(1, b"one\n"), (1, b"two\n"), (2, b"oops\n"), (2, b""), (1, b"x" * 5000), (0, b"echoed"), (2, b"end")]


def framed() -> bytes:
    return b"".join(bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for stream, data in STREAM)


@pytest.mark.parametrize("cut", [1, 3, 8, 9, 100, 100_000])
def test_frames_come_out_whole(monkeypatch, cut):
    written = []
    monkeypatch.setattr(terminal, "write_all", lambda fd, data: written.append((fd, data)))
    feed, data = terminal.Demultiplexer().feed, framed()
    for start in range(0, len(data), cut):
        feed(data[start : start + cut])
    for fd, streams in ((1, (0, 1)), (2, (2,))):
        assert b"".join(part for to, part in written if to == fd) == b"".join(part for stream, part in STREAM if stream in streams)


def test_lines_of_one_stream_are_written_at_once(monkeypatch):
    written = []
    monkeypatch.setattr(terminal, "write_all", lambda fd, data: written.append((fd, data)))
    terminal.Demultiplexer().feed(framed())
    assert written == [(1, b"one\ntwo\n"), (2, b"oops\n"), (1, b"x" * 5000 + b"echoed"), (2, b"end")]
