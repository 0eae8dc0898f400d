"""The keeper's own log: lines that are kept, and no more of them than there is room for."""

from __future__ import annotations

import subprocess
import sys

from atoll.runtime.complain import LOG_MAX

MANY = "from atoll.runtime.complain import complain\nfor number in range(4000): complain(f'{number:04} ' + 'x' * 1000)"


def test_log_is_bounded(tmp_path):
    log = tmp_path / "keeper.log"
    with log.open("ab") as stderr:
        subprocess.run([sys.executable, "-c", MANY], stderr=stderr, check=True, timeout=20)
    before = tmp_path / "keeper.log.1"
    lines = [line.split()[2] for part in (before, log) for line in part.read_text().splitlines()]
    assert lines == [f"{number:04}" for number in range(int(lines[0]), 4000)]
    assert LOG_MAX <= before.stat().st_size < LOG_MAX + 2000
    assert log.stat().st_size < LOG_MAX + 2000


def test_what_cannot_be_written_is_no_failure():
    said = "from atoll.runtime.complain import complain\ncomplain('x' * 3000000)"
    with open("/dev/full", "wb") as stderr:
        subprocess.run([sys.executable, "-c", said], stderr=stderr, check=True, timeout=20)
