"""Network namespaces that have a name: made, entered, deleted.

A namespace lives as long as its bind mount, with no process inside. Joining changes the calling thread alone, so both making and
entering are
done by a thread that ends with the call; the event loop's own thread never leaves home. A socket opened inside keeps its namespace,
which is
how the engine serves names inside a container without being there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from atoll.errors import SystemFailure

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p)


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
        _check(_libc.unshare(_CLONE_NEWNET), what)
        _check(_libc.mount(b"/proc/thread-self/ns/net", os.fsencode(path), None, _MS_BIND, None), what)
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
        _check(_libc.setns(fd, _CLONE_NEWNET), what)
        return function()

    try:
        return _in_thread(inside)
    finally:
        os.close(fd)


def delete(path: Path) -> bool:
    """Unmounts and unlinks; False where there was nothing. Links inside die with the namespace, once no process and no socket is in it."""
    if _libc.umount2(os.fsencode(path), _MNT_DETACH) != 0:
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOENT):  # a plain file left by a crash; nothing
            raise SystemFailure(f"unmount network namespace {path}", code)
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


def _check(result: int, what: str) -> None:
    if result != 0:
        raise SystemFailure(what, ctypes.get_errno())


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
