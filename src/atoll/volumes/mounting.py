"""Volumes with options: `--opt type=tmpfs --opt o=size=100m`, `--opt type=none --opt o=bind --opt device=/srv/data`, NFS and the like.

The options are mount(8)'s, as Docker's local driver takes them: words that are flags become flags, the rest goes to the file system as
it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from atoll.errors import InvalidInput, NotSupported
from atoll.kernel import mounts

_KNOWN = ("type", "o", "device")
_BIND = 0x1000
_REMOUNT = 0x20
_READ_ONLY = 0x1
_FLAGS = {  # mount(2); 0 for words that only name the default
    "ro": _READ_ONLY,
    "nosuid": mounts.MS_NOSUID,
    "nodev": mounts.MS_NODEV,
    "noexec": mounts.MS_NOEXEC,
    "sync": 0x10,
    "dirsync": 0x80,
    "noatime": 0x400,
    "nodiratime": 0x800,
    "bind": _BIND,
    "rbind": _BIND | mounts.MS_REC,
    "relatime": 1 << 21,
    "strictatime": 1 << 24,
    "lazytime": 1 << 25,
    "defaults": 0,
    "rw": 0,
    "suid": 0,
    "dev": 0,
    "exec": 0,
    "async": 0,
}


def check_options(options: Mapping[str, str]) -> dict[str, str]:
    """The options, when a volume can be made with them. Raises InvalidInput or NotSupported."""
    if "size" in options:
        raise NotSupported("quota size requested but no quota support: for a tmpfs volume write --opt o=size=...")
    for key in options:
        if key not in _KNOWN:
            raise InvalidInput(f'invalid option: "{key}": known are {", ".join(_KNOWN)}')
    if not options:
        return {}
    flags, _data = _parse(options.get("o", ""))
    kind, device = options.get("type", ""), options.get("device", "")
    if not device and kind != "tmpfs":
        raise InvalidInput("missing device in volume options: add --opt device=... (for memory only, --opt type=tmpfs --opt device=tmpfs)")
    if flags & _BIND and not device.startswith("/"):
        raise InvalidInput(f"a bind volume needs an absolute path as its device, not {device!r}")
    if not flags & _BIND and not kind:
        raise InvalidInput("missing type in volume options: add --opt type=... or --opt o=bind")
    return dict(options)


def mount_volume(options: Mapping[str, str], data: Path) -> None:
    """Mounts what the options name on `data`. Raises SystemFailure, or InvalidInput where the directory to bind is not there."""
    flags, extra = _parse(options.get("o", ""))
    kind, device = options.get("type", ""), options.get("device", "") or options.get("type", "none")
    if not flags & _BIND:
        mounts.mount(device, str(data), kind, flags, extra)
        return
    if not os.path.isdir(device):
        raise InvalidInput(f"failed to mount local volume: mount {device}:{data}: no such directory")
    mounts.mount(device, str(data), None, flags & (_BIND | mounts.MS_REC))
    if rest := flags & ~(_BIND | mounts.MS_REC):  # a bind mount takes its flags in a second call, mount(2)
        mounts.mount(None, str(data), None, rest | _BIND | _REMOUNT)


def unmount_volume(data: Path) -> None:
    mounts.unmount(str(data), mounts.MNT_DETACH)


def is_mounted(data: Path) -> bool:
    """A bind of the same file system has its parent's device number: only the mount table tells."""
    wanted = os.fsencode(os.path.realpath(data))
    with open("/proc/self/mountinfo", "rb") as table:
        return any(line.split(b" ", 5)[4] == wanted for line in table)


def _parse(words: str) -> tuple[int, str]:
    flags, data = 0, []
    for word in words.split(","):
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif word:
            data.append(word)
    return flags, ",".join(data)
