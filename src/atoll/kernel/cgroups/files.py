"""Cgroup control files: small reads and writes with errors that name the file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from atoll.errors import SystemFailure

_READ_SIZE = 65536
_SURE_END = 2048  # the kernel gives about a page at a time; a read of less than half of one has seen the end


def write(directory: str, name: str, value: str | int) -> None:
    """Raises SystemFailure; a value the kernel refuses is EINVAL."""
    path = os.path.join(directory, name)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise SystemFailure(f"set {value} in {path}", error.errno or 0) from error


@contextlib.contextmanager
def opened(directory: str, name: str) -> Iterator[int]:
    """For several writes, each a command of its own. Raises SystemFailure."""
    path = os.path.join(directory, name)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SystemFailure(f"open {path}", error.errno or 0) from error
    try:
        yield fd
    finally:
        os.close(fd)


def exists(directory: str, name: str) -> bool:
    return os.access(os.path.join(directory, name), os.W_OK)


def read(directory: str, name: str) -> str:
    """The content without its newline; "" when there is no such file."""
    try:
        fd = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        content = chunk = os.read(fd, _READ_SIZE)
        while len(chunk) > _SURE_END:
            chunk = os.read(fd, _READ_SIZE)
            content += chunk
        return content.decode("ascii", "replace").rstrip("\n")
    except OSError:
        return ""  # the group is being removed
    finally:
        os.close(fd)


def read_number(directory: str, name: str) -> int | None:
    """None for "max", for no such file."""
    text = read(directory, name)
    return int(text) if text.lstrip("-").isdigit() else None


def read_table(directory: str, name: str) -> dict[str, int]:
    """A flat keyed file: "name number" a line."""
    table = {}
    for line in read(directory, name).splitlines():
        key, _, value = line.rpartition(" ")
        if value.isdigit():
            table[key] = int(value)
    return table
