"""Memory that only a start or a burst of work needed, given back.

Two things stay resident though nobody may read them again: what malloc has freed in the middle of its heaps (malloc_trim(3)), and pages of
libraries, most of them run once, when a module was imported (madvise(2), MADV_DONTNEED). The latter are the page cache's; whoever needs one
again has it by a minor fault, which brings its neighbours along, without the disk. A page that is the process's own (a relocation has
written to it) is never let go: it could not come back.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator

from atoll.kernel import syscall

_DONTNEED = 4
_M_ARENA_MAX = -8

_madvise = syscall.libc.madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
# glibc's own; another libc has neither the need nor the call.
_trim = getattr(syscall.libc, "malloc_trim", None)
_mallopt = getattr(syscall.libc, "mallopt", None)


def share_heaps(count: int) -> None:
    """Let all threads allocate from COUNT heaps: by default each gets one, up to eight a core, and each keeps what its thread freed."""
    if _mallopt is not None:
        _mallopt(_M_ARENA_MAX, count)


def give_back() -> None:
    """What this process holds and may not need again. Takes milliseconds, most of them without the interpreter's lock."""
    if _trim is not None:
        _trim(0)
    with open("/proc/self/smaps", encoding="ascii", errors="surrogateescape") as lines:
        clean = list(clean_libraries(lines))
    for begin, end in clean:
        _madvise(begin, end - begin, _DONTNEED)


def clean_libraries(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """The read-only mappings, of files that are also mapped as programs, of which no page is the process's own (proc(5), smaps)."""
    programs: set[str] = set()
    found: list[tuple[str, int, int]] = []
    path, begin, end = "", 0, 0
    for line in smaps:
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):  # "begin-end rwxp offset device inode path"
            fields = rest.split(None, 4)
            path = fields[4].rstrip("\n") if len(fields) == 5 and fields[4].startswith("/") else ""
            if path and "x" in fields[0]:
                programs.add(path)
            if fields[0] not in {"r-xp", "r--p"}:
                path = ""
            begin, end = (int(number, 16) for number in name.split("-"))
        elif path and name == "Anonymous:" and rest.split() == ["0", "kB"]:
            found.append((path, begin, end))
    return ((begin, end) for path, begin, end in found if path in programs)
