"""OCI mount options sorted into what the kernel's calls want: attributes, propagation, and the file system's own parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from atoll.kernel import mounts

# option: (attribute, whether the option sets it)
_ATTRIBUTES = {
    "ro": (mounts.ATTR_RDONLY, True),
    "rw": (mounts.ATTR_RDONLY, False),
    "nosuid": (mounts.ATTR_NOSUID, True),
    "suid": (mounts.ATTR_NOSUID, False),
    "nodev": (mounts.ATTR_NODEV, True),
    "dev": (mounts.ATTR_NODEV, False),
    "noexec": (mounts.ATTR_NOEXEC, True),
    "exec": (mounts.ATTR_NOEXEC, False),
    "noatime": (mounts.ATTR_NOATIME, True),
    "strictatime": (mounts.ATTR_STRICTATIME, True),
    "nodiratime": (mounts.ATTR_NODIRATIME, True),
    "diratime": (mounts.ATTR_NODIRATIME, False),
    "nosymfollow": (mounts.ATTR_NOSYMFOLLOW, True),
    "symfollow": (mounts.ATTR_NOSYMFOLLOW, False),
}
_RECURSIVE = {f"r{name}": value for name, value in _ATTRIBUTES.items()}
_PROPAGATION = {
    "private": mounts.MS_PRIVATE,
    "slave": mounts.MS_SLAVE,
    "shared": mounts.MS_SHARED,
    "unbindable": mounts.MS_UNBINDABLE,
}
# Said by mount(8) only, or the default anyway.
_IGNORED = frozenset(
    ("defaults", "relatime", "norelatime", "atime", "async", "mand", "nomand", "loud", "silent", "auto", "noauto", "z", "Z"),
)


class MountOptions(NamedTuple):
    """`add` and `remove` are mount attributes, `recursive_*` those for the whole tree ("rro").

    `propagation` holds (kind, recursive); `parameters` are the file system's own, (name, value or None).
    """

    bind: bool
    recursive: bool
    add: int
    remove: int
    recursive_add: int
    recursive_remove: int
    propagation: tuple[tuple[int, bool], ...]
    parameters: tuple[tuple[str, str | None], ...]

    def value(self, name: str) -> str | None:
        return dict(self.parameters).get(name)


def parse(options: Iterable[str]) -> MountOptions:
    bind = recursive = False
    plain, tree = [0, 0], [0, 0]  # [remove, add]
    propagation: list[tuple[int, bool]] = []
    parameters: list[tuple[str, str | None]] = []
    for option in options:
        if option in ("bind", "rbind"):
            bind, recursive = True, option == "rbind"
        elif option in _ATTRIBUTES:
            _set(plain, *_ATTRIBUTES[option])
        elif option in _RECURSIVE:
            _set(tree, *_RECURSIVE[option])
        elif option in _PROPAGATION:
            propagation.append((_PROPAGATION[option], False))
        elif option[:1] == "r" and option[1:] in _PROPAGATION:
            propagation.append((_PROPAGATION[option[1:]], True))
        elif option not in _IGNORED:
            name, separator, value = option.partition("=")
            parameters.append((name, value if separator else None))
    return MountOptions(bind, recursive, plain[1], plain[0], tree[1], tree[0], tuple(propagation), tuple(parameters))


def propagation(name: str) -> tuple[int, bool]:
    """A rootfsPropagation such as "rslave"; by default slave, for the whole tree."""
    if name in _PROPAGATION:
        return _PROPAGATION[name], False
    return _PROPAGATION.get(name[1:], mounts.MS_SLAVE), True


def _set(sides: list[int], attribute: int, adds: bool) -> None:  # the later of two opposites wins
    sides[int(adds)] |= attribute
    sides[int(not adds)] &= ~attribute
