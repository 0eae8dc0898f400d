"""Memory given back: clean pages of libraries, and nothing that is the process's own."""

from __future__ import annotations

import subprocess
import sys

from atoll.kernel.memory import clean_libraries

SMAPS = """\
1000-2000 r--p 00000000 08:01 7 /lib/a b.so
Rss:                   4 kB
Anonymous:             0 kB
2000-3000 r-xp 00001000 08:01 7 /lib/a b.so
Anonymous:             0 kB
VmFlags: rd ex mr mw me
3000-4000 r--p 00002000 08:01 7 /lib/a b.so
Anonymous:             4 kB
4000-5000 rw-p 00003000 08:01 7 /lib/a b.so
Anonymous:             0 kB
5000-6000 r--p 00000000 08:01 8 /usr/lib/locale/archive
Anonymous:             0 kB
6000-7000 r--p 00000000 00:00 0
Anonymous:             0 kB
7000-8000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
8000-9000 r-xs 00000000 08:01 9 /lib/shared.so
Anonymous:             0 kB
"""

PROGRAM = """
import hashlib, ssl, sqlite3, threading
from atoll.kernel import memory

def of_files():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssFile"))

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))

memory.share_heaps(1)
size = 4000
big = [b"x" * size for _ in range(5000)]
kept = big[::500]
del big
before = of_files(), anonymous()
memory.give_back()
after = of_files(), anonymous()
assert after[0] < before[0] / 2, (before, after)
assert after[1] < before[1] - 15_000, (before, after)
assert hashlib.sha256(b"").hexdigest().startswith("e3b0c442"), "libraries work on"
assert ssl.create_default_context() and sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
assert all(part == b"x" * 4000 for part in kept)
"""


def test_only_clean_pages_of_loaded_libraries_count():
    assert list(clean_libraries(SMAPS.splitlines(keepends=True))) == [(0x1000, 0x2000), (0x2000, 0x3000)]


def test_a_process_works_on_with_less():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
