"""Capabilities: names, the bounding set, and giving a process its five sets (capabilities(7)).

Asking for more than the bounding set holds is an error of the kernel's. Machines such as CI runners and nested containers miss some, so
every set is cut to what this process can give; `--privileged` means "all there is".
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Mapping
from typing import Final

from atoll.errors import InvalidInput
from atoll.kernel import prctl, syscall

# In the kernel's order: the index is the number.
NAMES: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
NUMBER: Final = {name: number for number, name in enumerate(NAMES)}
SYS_ADMIN: Final = NUMBER["CAP_SYS_ADMIN"]
_VERSION_3: Final = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def normalise(name: str) -> str:
    """Docker's spellings ("net_admin", "CAP_NET_ADMIN", "all") to the kernel's name or "ALL". Raises InvalidInput."""
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else "CAP_" + upper
    if full not in NUMBER:
        raise InvalidInput(f'invalid capability: unknown capability: "{full}"')
    return full


def mask(names: Iterable[str]) -> int:
    """Names to a bit set; what this program does not know is left out."""
    bits = 0
    for name in names:
        if name in NUMBER:
            bits |= 1 << NUMBER[name]
    return bits


def names(bits: int) -> list[str]:
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def sets(pid: int | str = "self") -> dict[str, int]:
    """The five sets of a process as bit sets: inheritable, permitted, effective, bounding, ambient."""
    keys = {"CapInh": "inheritable", "CapPrm": "permitted", "CapEff": "effective", "CapBnd": "bounding", "CapAmb": "ambient"}
    found = {}
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            key, _, value = line.partition(":")
            if key in keys:
                found[keys[key]] = int(value, 16)
    return found


@functools.cache
def available() -> int:
    """The bounding set of this process when first asked: what it can give at most."""
    return sets()["bounding"]


def limit_bounding(wanted: int) -> None:
    """Drop from the bounding set whatever is not in `wanted`. Needs CAP_SETPCAP."""
    present = available()
    for number in range(present.bit_length()):
        if present >> number & 1 and not wanted >> number & 1:
            prctl.call(prctl.CAPBSET_DROP, number, what="drop a capability from the bounding set")


def apply(effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling thread's sets. Raises SystemFailure."""
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)()
    for word in (0, 1):
        data[word].effective = effective >> 32 * word & 0xFFFFFFFF
        data[word].permitted = permitted >> 32 * word & 0xFFFFFFFF
        data[word].inheritable = inheritable >> 32 * word & 0xFFFFFFFF
    syscall.call("capset", ctypes.byref(header), data, what="set capabilities")


def raise_ambient(bits: int) -> None:
    """Clear the ambient set, then raise `bits`, which must be permitted and inheritable."""
    prctl.call(prctl.CAP_AMBIENT, prctl.AMBIENT_CLEAR_ALL, what="clear ambient capabilities")
    for number in range(len(NAMES)):
        if bits >> number & 1:
            prctl.call(prctl.CAP_AMBIENT, prctl.AMBIENT_RAISE, number, what=f"raise ambient {NAMES[number]}")


def cut(wanted: Mapping[str, Iterable[str]], bounding: int) -> dict[str, int]:
    """An OCI `process.capabilities` as bit sets, each cut to `bounding` and to what its rules allow."""
    result = {kind: mask(wanted.get(kind) or ()) & bounding for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")}
    result["effective"] &= result["permitted"]
    result["inheritable"] &= result["bounding"]
    result["ambient"] &= result["permitted"] & result["inheritable"]
    return result
