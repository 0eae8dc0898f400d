"""Why a program that is there cannot be executed, in the words of who has to mend it.

The kernel says "exec format error" of a program for another processor and of a script without #! alike, and "no such file or directory" of
a script whose interpreter, or a program whose loader, is missing. The first bytes of the file tell them apart (elf(5), execve(2)).
"""

from __future__ import annotations

import contextlib
import os
import re
import struct

from atoll.engine.containers.record import Container
from atoll.engine.containers.rootfs import path_root
from atoll.engine.services import Services
from atoll.errors import AtollError
from atoll.images import Platform
from atoll.kernel.openat2 import open_in_root
from atoll.runtime import StartFailed

_PROGRAM = re.compile(r'exec:? "?(/[^":]+)"?: (exec format error|no such file or directory)')
_HEAD = 64 * 1024  # bytes: headers of a program, and the name of its loader, stand at its beginning
_MACHINES = {3: "386", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64", 258: "loong64"}
_INTERPRETER = 3  # PT_INTERP


def add_reason(services: Services, container: Container, error: StartFailed) -> None:
    """Adds to the error's message what can be found out. Blocks for the time of a mount; never raises."""
    found = _PROGRAM.search(str(error))
    if found is None:
        return
    with contextlib.suppress(AtollError, OSError, struct.error, IndexError):
        head = _read(services, container, found[1])
        why = unsuited(head) if found[2] == "exec format error" else lacking(head)
        if why:
            error.args = (f"{error}: {why}",)


def _read(services: Services, container: Container, path: str) -> bytes:
    with path_root(services, container, path) as (root, inner):
        fd = open_in_root(root, inner, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.read(fd, _HEAD)
        finally:
            os.close(fd)


def unsuited(head: bytes) -> str:
    """Of a file that the kernel cannot execute."""
    if not head:
        return "the file is empty"
    if head.startswith(b"\x7fELF"):
        host = Platform.of_host()
        machine = _MACHINES.get(int.from_bytes(head[18:20], "little" if head[5] == 1 else "big"), "another processor")
        if machine == host.architecture:
            return "the program is damaged"
        return f"the program is for {machine}, this machine is {host.architecture}: take an image for {host} (--platform {host})"
    if head.startswith(b"#!"):
        return "the interpreter in its first line cannot be executed"
    return "it does not say what is to run it: a script begins with a line such as #!/bin/sh"


def lacking(head: bytes) -> str:
    """Of a file that is there, but something it needs is not."""
    if head.startswith(b"#!"):
        line = head[2:256].split(b"\n")[0]
        if line.endswith(b"\r"):
            return "its lines end in CR LF, as on Windows: the carriage return is taken for a part of the interpreter's name"
        words = line.split()
        return f"its interpreter {words[0].decode(errors='replace')} is not in the image" if words else ""
    if head.startswith(b"\x7fELF"):
        loader = _loader(head)
        return f"its loader {loader} is not in the image: the program was built for another C library" if loader else ""
    return ""


def _loader(head: bytes) -> str:
    """The path in PT_INTERP of a 64-bit program; "" where it has none."""
    if head[4] != 2:
        return ""
    order = "<" if head[5] == 1 else ">"
    (table,) = struct.unpack_from(f"{order}Q", head, 32)
    size, count = struct.unpack_from(f"{order}HH", head, 54)
    if table > len(head):
        return ""
    for number in range(min(count, 64)):
        kind, _, offset, _, _, length = struct.unpack_from(f"{order}IIQQQQ", head, table + number * size)
        if kind == _INTERPRETER:
            return head[offset : offset + length].rstrip(b"\0").decode(errors="replace")
    return ""
