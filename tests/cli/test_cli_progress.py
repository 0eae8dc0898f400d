"""Progress of layers: lines redrawn in place on a terminal, plain lines elsewhere."""

import fcntl
import io
import os
import pty
import struct
import termios

import pytest

from atoll.cli import progress
from atoll.cli.wire import EngineError

MESSAGES = [
    {"status": "Pulling from library/web", "id": "latest"},
    {"status": "Downloading", "id": "aa", "progressDetail": {"current": 500_000, "total": 1_000_000}},
    {"status": "Downloading", "id": "bb", "progressDetail": {"current": 10, "total": 100}},
    {"status": "Pull complete", "id": "aa"},
    {"status": "Status: Downloaded newer image for web:latest"},
]


def test_elsewhere_than_on_a_terminal_states_are_lines():
    output = io.StringIO()
    progress.follow(MESSAGES, file=output)
    assert output.getvalue().splitlines() == [
        "latest: Pulling from library/web",
        "aa: Pull complete",
        "Status: Downloaded newer image for web:latest",
    ]


@pytest.mark.parametrize(("columns", "bar"), [(140, True), (80, False), (20, False)])
def test_on_a_terminal_each_layer_has_a_line(columns, bar):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(slave, "w", encoding="utf-8") as output:
        progress.follow(MESSAGES, file=output)
        seen = ""
        while "Status:" not in seen:
            seen += os.read(master, 65536).decode()
    os.close(master)
    assert ("[=========================>" in seen) is bar
    assert "\x1b[2A\r\x1b[2Kaa: Pull complete" in seen  # two rows up, to its own
    assert all(len(row.split("\x1b[2K")[-1].partition("\x1b")[0]) < max(columns, 46) for row in seen.splitlines())
    assert ("500kB/1MB" in seen) is (columns > 20)


def test_an_error_in_the_stream_is_an_error():
    with pytest.raises(EngineError, match="no space"):
        progress.follow([{"errorDetail": {"message": "no space"}}], quiet=True)
    assert progress.follow([{"aux": {"ID": "x"}}], quiet=True) == [{"ID": "x"}]
