"""A pseudo-terminal out of the container's own devpts, so that ttyname and /dev/console mean something inside."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

from atoll.kernel import inroot, mounts
from atoll.kernel.openat2 import open_in_root

_TIOCGPTPEER = 0x5441  # asm-generic; the same on x86, arm and riscv
_TIOCSPTLCK = 0x40045431
_TIOCGPTN = 0x80045430


def open_pair(root: int) -> tuple[int, int]:
    """(master, slave) of a new terminal in the root's /dev/pts."""
    master = open_in_root(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    # By TIOCGPTPEER and not by name: what the name leads to is the container's to choose.
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave


def mount_console(root: int, master: int, slave: int) -> None:
    """Make the terminal /dev/console, where programs expect the system's messages to go."""
    number = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, struct.pack("i", 0)))[0]
    tree = mounts.clone_tree(f"/dev/pts/{number}", recursive=False, at=slave)
    target = inroot.make_file(root, "/dev/console", 0o600)
    mounts.attach(tree, target, "/dev/console")
    os.close(target)
    os.close(tree)


def set_size(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


def make_controlling(slave: int) -> None:
    """For a session leader without a terminal."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
