"""Network namespaces that have a name: made, entered, deleted.

A namespace lives as long as its bind mount, with no process inside. Joining changes the calling thread alone, so both making and
entering are
done by a thread that ends with the call; the event loop's own thread never leaves home. A socket opened inside keeps its namespace,
which is
how the engine serves names inside a container without being there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from atoll.errors import SystemFailure
from atoll.kernel import mounts, syscall

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000

T = TypeVar("T")


def create(path: Path, setup: Callable[[], T]) -> T:
    """Makes the namespace at `path` (a file that must not exist), runs `setup` inside, and answers its result.

    On failure, `setup`'s included, nothing is left. Raises SystemFailure.
    """
    what = f"create network namespace {path}"
    try:
        path.touch(0o600, exist_ok=False)
    except OSError as error:
        raise SystemFailure(what, error.errno or 0) from error

    def inside() -> T:
        syscall.checked(syscall.libc.unshare(_CLONE_NEWNET), what)
        mounts.mount("/proc/thread-self/ns/net", str(path), None, _MS_BIND)
        return setup()

    try:
        return _in_thread(inside)
    except BaseException:
        delete(path)
        raise


def call(path: Path, function: Callable[[], T]) -> T:
    """Runs `function` inside the namespace at `path` and answers its result. Raises SystemFailure where it cannot be entered."""
    what = f"enter network namespace {path}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SystemFailure(what, error.errno or 0) from error

    def inside() -> T:
        syscall.checked(syscall.libc.setns(fd, _CLONE_NEWNET), what)
        return function()

    try:
        return _in_thread(inside)
    finally:
        os.close(fd)


def delete(path: Path) -> bool:
    """Unmounts and unlinks; False where there was nothing. Links inside die with the namespace, once no process and no socket is in it."""
    try:
        mounts.unmount(str(path), mounts.MNT_DETACH)
    except SystemFailure as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # a plain file left by a crash; nothing
            raise
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        return True
    return False


def is_alive(path: Path) -> bool:
    """Whether a namespace is mounted at `path`: after a reboot only the plain file is left."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.fstat(fd).st_dev == os.stat("/proc/self/ns/net").st_dev  # both on nsfs
    finally:
        os.close(fd)


def _in_thread(function: Callable[[], T]) -> T:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((True, function()))
        except BaseException as error:
            outcome.extend((False, error))

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    succeeded, value = outcome
    if not succeeded:
        raise value
    result: T = value
    return result
