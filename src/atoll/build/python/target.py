"""What the Python of a base image is, found by its files: version, machine, C library. Nothing is run for it.

From these follow the wheels it can use (the platform compatibility tags of PEP 425, 600 and 656) and what environment markers mean.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.tags import Tag, compatible_tags, cpython_tags

from atoll.build.sources import Tree
from atoll.errors import InvalidInput

LIBRARY_MAX = 4 << 20  # bytes of a libc.so.6
PROGRAM = re.compile(r"python3\.(\d+)")
GLIBC = re.compile(rb"GNU C Library [^\n]*version (\d+)\.(\d+)")
OLDEST_GLIBC = 5  # manylinux1 is 2.5
OLD_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
MUSL_MINOR = 2  # musllinux_1_2: musl 1.2 has been in every release for years


@dataclass(frozen=True, slots=True)
class Target:
    """`interpreter` is its path in the image; `version` all that is known of it, "3.12" at least; `libc` is glibc or musl."""

    interpreter: str
    version: str
    libc: str
    libc_version: tuple[int, int]
    machine: str

    def __str__(self) -> str:
        return f"CPython {self.short} on linux {self.machine} with {self.libc} {'.'.join(map(str, self.libc_version))}"

    @property
    def short(self) -> str:
        return ".".join(self.version.split(".")[:2])

    def tags(self) -> list[Tag]:
        """The best first."""
        major, minor = (int(part) for part in self.short.split("."))
        interpreter, platforms = f"cp{major}{minor}", self._platforms()
        return [
            *cpython_tags((major, minor), [interpreter], platforms),
            *compatible_tags((major, minor), interpreter, platforms),
        ]

    def _platforms(self) -> list[str]:
        major, minor = self.libc_version
        if self.libc == "musl":
            return [*(f"musllinux_{major}_{number}_{self.machine}" for number in range(minor, -1, -1)), f"linux_{self.machine}"]
        names = []
        for number in range(minor, OLDEST_GLIBC - 1, -1):
            names.append(f"manylinux_{major}_{number}_{self.machine}")
            if number in OLD_NAMES:
                names.append(f"{OLD_NAMES[number]}_{self.machine}")
        return [*names, f"linux_{self.machine}"]

    def markers(self) -> dict[str, str]:
        """The variables of PEP 508 markers."""
        full = self.version if self.version.count(".") > 1 else f"{self.version}.0"
        return {
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": full,
            "python_version": self.short,
            "sys_platform": "linux",
        }


def find(root: Tree, environment: Mapping[str, str], name: str) -> Target:
    """The Python in ROOT, an image's merged layers; NAME is what errors call the image. Raises InvalidInput."""
    for directory in ("usr/local/bin", "usr/bin"):
        minors = [int(match[1]) for entry in root.names(directory) if (match := PROGRAM.fullmatch(entry))]
        if minors:
            short = f"3.{max(minors)}"
            stated = environment.get("PYTHON_VERSION", "")  # as the official images have it
            version = stated if stated.startswith(f"{short}.") else short
            return Target(f"/{directory}/python{short}", version, *_libc(root, name), platform.machine())
    raise InvalidInput(f"base image {name} has no Python in /usr/local/bin or /usr/bin: choose another with --base")


def _libc(root: Tree, name: str) -> tuple[str, tuple[int, int]]:
    machine = platform.machine()
    for path in (f"usr/lib/{machine}-linux-gnu/libc.so.6", f"lib/{machine}-linux-gnu/libc.so.6", "usr/lib64/libc.so.6", "lib64/libc.so.6"):
        try:
            found = GLIBC.search(root.read(path, LIBRARY_MAX))
        except OSError:
            continue
        if found:
            return "glibc", (int(found[1]), int(found[2]))
    if root.exists(f"lib/ld-musl-{machine}.so.1"):
        return "musl", (1, MUSL_MINOR)
    raise InvalidInput(f"base image {name} has neither a glibc nor a musl for {machine}: choose another with --base")
