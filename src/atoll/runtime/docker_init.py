"""The program that a container's process 1 becomes with `--init`: a few hundred bytes that wait for signals, pass them on and bury orphans.

It is an ELF image made here and executed from memory, so that no binary has to be brought into the container and nothing of the keeper's
memory stays in it, for a privileged container could read that. It is as small as a program can be: no libc, no heap, one page. It is given
a child that runs already, whose number is written into the code, and a mask that blocks every signal:

    prctl(PR_SET_NAME, "docker-init")
    next:   signal = rt_sigtimedwait({every one})
            if signal is not SIGCHLD: kill(child, signal); goto next
    bury:   pid = wait4(-1, &status, WNOHANG)
            if pid <= 0: goto next
            if pid is not child: goto bury
            exit_group(status is by a signal ? 128 + the signal : the exit code)

Where the machine is neither of those below, `reaper` does the same in Python.
"""

from __future__ import annotations

import fcntl
import os
import platform
import struct
from typing import Final

NAME: Final = "docker-init"  # what Docker's own is called
_CHILD: Final = 0x11111111  # stands in the code for the child's number
_BASE: Final = 0x400000
_ALIGNMENT: Final = 0x10000  # the largest page of either machine
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")  # Elf64_Ehdr
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")  # Elf64_Phdr
_PT_LOAD, _PT_GNU_STACK = 1, 0x6474E551

# One line for each of the instructions or a few that belong together.
_X86_64: Final = (
    "bf0f000000 488d357a000000 b89d000000 0f05"  # prctl(15, name)
    "48c7c0ffffffff 50 4889e7 31f6 31d2 41ba08000000 b880000000 0f05 59"  # next: rt_sigtimedwait(&{-1}, 0, 0, 8)
    "85c0 78df"  # negative: next
    "83f811 7410"  # SIGCHLD: bury
    "89c6 bf11111111 b83e000000 0f05 ebca"  # kill(child, signal); next
    "50 bfffffffff 4889e6 ba01000000 4531d2 b83d000000 0f05 5b"  # bury: wait4(-1, &status, 1, 0)
    "85c0 7ead"  # nobody: next
    "3d11111111 75dc"  # another: bury
    "89df 83e77f 7505 0fb6ff eb06"  # by exit: the code
    "81c780000000"  # by a signal: 128 and it
    "b8e7000000 0f05"  # exit_group
)
_AARCH64: Final = (
    "e00180d2 41050010 e81480d2 010000d4"  # prctl(15, name)
    "00008092 e00f1ff8 e0030091 010080d2 020080d2 030180d2 281180d2 010000d4 ff430091"  # next: rt_sigtimedwait(&{-1}, 0, 0, 8)
    "1f000071 cbfeff54"  # negative: next
    "1f440071 c0000054"  # SIGCHLD: bury
    "e103002a 00030018 281080d2 010000d4 efffff17"  # kill(child, signal); next
    "ff4300d1 00008092 e1030091 220080d2 030080d2 882080d2 010000d4 e40741b8"  # bury: wait4(-1, &status, 1, 0)
    "1f000071 adfcff54"  # nobody: next
    "45010018 1f00056b 81feff54"  # another: bury
    "80180072 61000054 803c0853 02000014"  # by exit: the code
    "00000211"  # by a signal: 128 and it
    "c80b80d2 010000d4"  # exit_group
    "11111111"  # the child's number
)
_MACHINES: Final = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}  # to the ELF machine and the code


def image(child: int, machine: str | None = None) -> bytes | None:
    """The program that looks after the process `child`; None for a machine it was not written for."""
    number, code = _MACHINES.get(machine or platform.machine(), (0, ""))
    if not code:
        return None
    text = bytes.fromhex(code).replace(struct.pack("<I", _CHILD), struct.pack("<I", child)) + NAME.encode() + b"\0"
    start = _HEADER.size + 2 * _SEGMENT.size
    size = start + len(text)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = _HEADER.pack(ident, 2, number, 1, _BASE + start, _HEADER.size, 0, 0, _HEADER.size, _SEGMENT.size, 2, 64, 0, 0)
    readable_executable, readable_writable = 5, 6
    load = _SEGMENT.pack(_PT_LOAD, readable_executable, 0, _BASE, _BASE, size, size, _ALIGNMENT)
    stack = _SEGMENT.pack(_PT_GNU_STACK, readable_writable, 0, 0, 0, 0, 0, 16)
    return header + load + stack + text


def execute(child: int, words: list[str]) -> None:
    """Become it, showing `words` as its command line. Returns where that cannot be: another machine, or memory may not be executed."""
    program = image(child)
    if program is None:
        return
    fd = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, program)
        os.fchmod(fd, 0o555)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
        os.execve(fd, words, {})
    except OSError:
        os.close(fd)
