"""How a process ended, asked by somebody who is not its parent.

While it is a zombie, /proc/<pid>/stat shows the status. Once it has been reaped, its pidfd tells: the kernel keeps the status for as long
as one is open (PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15 and later, include/uapi/linux/pidfd.h).
"""

from __future__ import annotations

import fcntl
import struct
from typing import Final

_GET_INFO: Final = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info of 64 bytes, its first version)
_INFO_EXIT: Final = 1 << 3
_MASK: Final = struct.Struct("=Q")
_INFO: Final = struct.Struct("=Q52xi")  # mask, what is of no interest here, exit_code
_STATE, _EXIT_CODE = 0, 49  # fields 3 and 52 of proc_pid_stat(5), counted from the third


def wait_status(pidfd: int, pid: int) -> int | None:
    """As os.waitpid gives it; None while the process runs, and where nobody can tell."""
    answer = bytearray(_INFO.size)
    _MASK.pack_into(answer, 0, _INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, answer)
    except OSError:
        return _status_of_zombie(pid)
    mask, status = _INFO.unpack(answer)
    return int(status) if mask & _INFO_EXIT else _status_of_zombie(pid)


def _status_of_zombie(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[_EXIT_CODE]) if fields[_STATE] == "Z" else None
