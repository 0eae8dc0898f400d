"""Namespaces in which a peer runs, so that nothing of it stays on the machine: networks, iptables rules, mounts, processes and what it
writes below /run and /var/lib go when the cell's first process does.

Only cgroups lie outside: a cell is given the names of those its peer makes, and removes them. The unified hierarchy is unmounted inside,
since crun refuses a hybrid of v1 and v2. A peer of a later Debian brings its C library, which lies over the machine's inside the cell.
Commands enter by `nsenter`, and their times include it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

READY_S = 20.0
STEP_S = 0.02
# The shell stays as the first process of the pid namespace, and reaps what is left to it.
SETUP = """
ip link set lo up
[ -d /sys/fs/cgroup/cpu ] && [ -d /sys/fs/cgroup/unified ] && umount /sys/fs/cgroup/unified
[ -z "$1" ] || mount -t overlay -o "ro,lowerdir=$1:$2" overlay "$2"
shift 2
for directory in /run /var/lib /dev/shm; do mount -t tmpfs tmpfs $directory; done
echo ready
"$@" & wait
"""


class Cell:
    def __init__(self, command: list[str], log: Path, cgroups: tuple[str, ...], programs: Path | None = None) -> None:
        """Run `command`; what it prints goes to `log`. `cgroups` are the names, below each hierarchy, that are its own.

        `programs` has `bin`, which comes first in PATH, and `lib`, a C library.
        """
        environ = {**os.environ, "PATH": f"{programs}/bin:{os.environ['PATH']}"} if programs else None
        libraries = [f"{programs}/lib", f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}"] if programs else ["", ""]
        self._cgroups = [name for name in cgroups if not any(_hierarchies(name))]  # not what somebody else has made
        isolate = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SETUP, "cell", *libraries]
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [*isolate, *command], env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
            )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        self._process.stdout.close()
        assert ready, f"namespaces could not be made: {log.read_text(errors='replace')}"
        self.first = children(self._process.pid)[0]

    @property
    def enter(self) -> list[str]:
        return ["nsenter", "--target", str(self.first), "--net", "--mount", "--pid"]

    def processes(self) -> list[int]:
        """All inside, but for the shell."""
        found, new = [], children(self.first)
        while new:
            found += new
            new = [child for pid in new for child in children(pid)]
        return found

    def close(self) -> None:
        for pid in children(self.first):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(READY_S)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.first, signal.SIGKILL)  # takes all the namespace's processes along
        self._process.wait(READY_S)
        for name in self._cgroups:
            for top in _hierarchies(name):
                _remove_cgroup(top)


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _hierarchies(name: str) -> list[Path]:
    return [path for pattern in (name, f"*/{name}") for path in Path("/sys/fs/cgroup").glob(pattern)]


def _remove_cgroup(top: Path) -> None:
    end = time.monotonic() + READY_S
    for directory, _, _ in os.walk(top, topdown=False):
        while True:
            try:
                os.rmdir(directory)
            except OSError:  # its last process is about to go
                assert time.monotonic() < end, f"{directory} is still in use"
                time.sleep(STEP_S)
            else:
                break
