"""A base image with a Python in it: Debian's own where the machine has it, or one that only looks like it."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path

PROGRAM = Path("/usr/bin/python3.11")
MULTIARCH = Path("/lib/x86_64-linux-gnu")
LEFT_OUT = re.compile(r"/(test|tests|idlelib|tkinter|lib2to3|ensurepip|__pycache__|dist-packages|config-3[^/]*)(/|$)")


def has_python() -> bool:
    return PROGRAM.exists() and MULTIARCH.is_dir()


def python_tar() -> bytes:
    """The interpreter, its standard library, and the shared libraries both need."""
    library = Path("/usr/lib") / PROGRAM.name
    files = [PROGRAM, *(file for file in library.rglob("*") if not file.is_dir() and not LEFT_OUT.search(str(file)))]
    objects = [file for file in files if file == PROGRAM or file.suffix == ".so"]
    done = subprocess.run(["ldd", *objects], capture_output=True, text=True, check=False)
    needed = {Path(path) for path in re.findall(r"(/\S+) \(0x", done.stdout)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for file in [*files, *sorted(needed)]:
            tar.add(file.resolve(), str(file).lstrip("/"), recursive=False)
    return out.getvalue()


def look_alike_tar(program: str = "usr/local/bin/python3.12", libc: str = "usr/lib/x86_64-linux-gnu/libc.so.6") -> bytes:
    """Nothing in it runs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in ((program, b""), (libc, b"GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\n")):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
