"""One control group in every hierarchy at once: made, limited, entered, frozen, killed, measured, removed.

A process joins a v1 group fastest by writing 0 into `tasks` itself, while it has a single thread: that alone needs no global lock (0.3 ms
for nine groups; writing another's number, or to cgroup.procs, waits for an RCU grace period, 12 ms). It is born in its v2 group by
CLONE_INTO_CGROUP. So the v2 group must be there before the process, while the v1 ones can be made beside its first steps.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any

from atoll.errors import NotSupported, SystemFailure
from atoll.kernel.cgroups import device_program, files, v1, v2
from atoll.kernel.cgroups.layout import Layout


class Cgroup:
    """`path` is the same below each hierarchy's root, "/atoll-1a2b3c4d/<container id>"."""

    def __init__(self, layout: Layout, path: str) -> None:
        self.layout = layout
        self.path = path
        self._directories = [point + path for point in layout.points]
        self._at = {controller: point + path for controller, point in layout.v1.items()}
        self._unified = layout.unified + path if layout.unified else ""

    def create(self, resources: Mapping[str, Any]) -> None:
        """Make the group and its parents, and set its limits. Raises SystemFailure, NotSupported (a limit no controller here can keep)."""
        self.create_unified(resources)
        self.create_v1(resources)

    def create_unified(self, resources: Mapping[str, Any]) -> None:
        """The first half of `create`: what a process can be born in."""
        self._require(resources)
        if self._unified:
            _make(self._unified)
            self._delegate()
            v2.apply(self._unified, self.layout.unified_controllers, resources)
            if "devices" not in self._at and resources.get("devices"):
                device_program.restrict(self._unified, list(resources["devices"]))

    def create_v1(self, resources: Mapping[str, Any]) -> None:
        """The other half."""
        for directory in self._directories:
            _make(directory)
        cpuset = self._at.get("cpuset")
        if cpuset:
            _inherit_cpuset(self.layout.v1["cpuset"], cpuset)
        v1.apply(self._at, resources)
        if "devices" in self._at and resources.get("devices"):
            v1.restrict_devices(self._at["devices"], resources["devices"])

    def update(self, resources: Mapping[str, Any]) -> None:
        """Change the limits that are present; device rules are left as they are."""
        self._require(resources)
        v1.apply(self._at, resources)
        if self._unified:
            v2.apply(self._unified, self.layout.unified_controllers, resources)

    def enter(self) -> None:
        """Move the calling process, which must have a single thread, into the v1 groups."""
        for directory in self._directories:
            files.write(directory, "tasks", 0)

    def open_unified(self) -> int | None:
        """For CLONE_INTO_CGROUP; the caller closes it. None where there is no v2."""
        if not self._unified:
            return None
        return os.open(self._unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def directories(self) -> Iterator[tuple[str, str]]:
        """(mount point, the group's directory) of every hierarchy."""
        for point in self.layout.points:
            yield point, point + self.path
        if self._unified:
            yield self.layout.unified, self._unified

    def pids(self) -> list[int]:
        return _pids(self._members)

    def kill(self) -> bool:
        """SIGKILL every process that is in the group now; True once none is left. They end in their own time: ask again."""
        pids = {*self.pids(), *_pids(self._unified)}  # who is just born is in the v2 group alone
        if not pids:
            return True
        if self._unified and files.exists(self._unified, "cgroup.kill"):
            with contextlib.suppress(SystemFailure):  # it has just been removed
                files.write(self._unified, "cgroup.kill", 1)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.thaw()  # v1: the frozen do not even die
        return False

    def freeze(self) -> None:
        """Have every process stop; `is_frozen` tells when they stand. Raises SystemFailure, NotSupported."""
        if "freezer" in self._at:
            files.write(self._at["freezer"], "freezer.state", "FROZEN")
        elif self._unified:
            files.write(self._unified, "cgroup.freeze", "1")
        else:
            raise NotSupported("pause needs the freezer cgroup, which this machine does not have")

    def is_frozen(self) -> bool:
        if "freezer" in self._at:
            return files.read(self._at["freezer"], "freezer.state") == "FROZEN"
        return bool(self._unified) and files.read_table(self._unified, "cgroup.events").get("frozen") == 1

    def thaw(self) -> None:
        if "freezer" in self._at and files.exists(self._at["freezer"], "freezer.state"):
            files.write(self._at["freezer"], "freezer.state", "THAWED")
        elif self._unified and files.exists(self._unified, "cgroup.freeze"):
            files.write(self._unified, "cgroup.freeze", 0)

    def oom_kills(self) -> int:
        """How many processes of the group the kernel has killed for memory."""
        if "memory" in self._at:
            return files.read_table(self._at["memory"], "memory.oom_control").get("oom_kill", 0)
        return files.read_table(self._unified, "memory.events").get("oom_kill", 0) if self._unified else 0

    def stats(self) -> dict[str, Any]:
        """Usage: cpu (ns), memory (bytes), pids and io; a controller that is missing is left out."""
        at, unified = self._at, self._unified
        result: dict[str, Any] = {"cpu": v1.cpu_stats(at) if "cpuacct" in at else v2.cpu_stats(unified)}
        if "memory" in at:
            result["memory"] = v1.memory_stats(at["memory"])
        elif "memory" in self.layout.unified_controllers:
            result["memory"] = v2.memory_stats(unified)
        if self.layout.has("pids"):
            directory = at.get("pids", unified)
            result["pids"] = {
                "current": files.read_number(directory, "pids.current") or 0,
                "limit": files.read_number(directory, "pids.max"),
            }
        if "blkio" in at:
            result["io"] = v1.io_stats(at["blkio"])
        elif "io" in self.layout.unified_controllers:
            result["io"] = v2.io_stats(unified)
        return result

    def remove(self) -> bool:
        """Remove the group, groups the container made inside it too; False while processes are left. Raises SystemFailure."""
        removed = [_remove(directory) for _, directory in self.directories()]  # all of them, whatever the first gives
        return all(removed)

    @property
    def _members(self) -> str:
        """The hierarchy to list processes from: each process is in all of them."""
        return self._at.get("pids") or (self._directories[0] if self._directories else self._unified)

    def _require(self, resources: Mapping[str, Any]) -> None:
        memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
        wanted = {
            "memory": memory.get("limit"),
            "pids": (resources.get("pids") or {}).get("limit"),
            "cpu": cpu.get("quota") or cpu.get("shares"),
            "cpuset": cpu.get("cpus") or cpu.get("mems"),
        }
        if resources.get("unified") and not self._unified:
            raise NotSupported(
                f"unified resources were asked for, but this machine's cgroups ({self.layout.mode}) have no unified hierarchy"
            )
        for controller, value in wanted.items():
            if value and not self.layout.has(controller):
                raise NotSupported(
                    f"a {controller} limit was asked for, but this machine's cgroups ({self.layout.mode}) have no {controller} controller"
                )

    def _delegate(self) -> None:
        """Switch the unified controllers on from the root down to the group (its parents must hold no process of their own)."""
        controllers = self.layout.unified_controllers
        if controllers.issubset(files.read(self._unified, "cgroup.controllers").split()):
            return
        directory = self.layout.unified
        for name in ("", *self.path.strip("/").split("/")[:-1]):
            directory = os.path.join(directory, name) if name else directory
            present = files.read(directory, "cgroup.subtree_control").split()
            for controller in sorted(controllers.difference(present)):
                with contextlib.suppress(SystemFailure):  # what cannot be delegated is missed only if a limit needs it, and named then
                    files.write(directory, "cgroup.subtree_control", f"+{controller}")


def _make(directory: str) -> None:
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return
    except FileNotFoundError:
        try:
            os.makedirs(directory, 0o755, exist_ok=True)
        except OSError as error:
            raise SystemFailure(f"create cgroup {directory}", error.errno or 0) from error
    except OSError as error:
        raise SystemFailure(f"create cgroup {directory}", error.errno or 0) from error


def _inherit_cpuset(root: str, directory: str) -> None:
    """v1 cpusets start empty, and an empty one takes no process: copy from the root down what is not set. A parent that was given its own
    passes them on by itself from then on.
    """
    if files.read(directory, "cpuset.cpus") and files.read(directory, "cpuset.mems"):
        return
    above = root
    for name in directory[len(root) :].strip("/").split("/"):
        here = os.path.join(above, name)
        for key in ("cpuset.cpus", "cpuset.mems"):
            if not files.read(here, key):
                files.write(here, key, files.read(above, key))
        if here != directory:
            files.write(here, "cgroup.clone_children", 1)
        above = here


def _pids(directory: str) -> list[int]:
    return [int(word) for word in files.read(directory, "cgroup.procs").split() if word != "0"] if directory else []


def _remove(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in {errno.EBUSY, errno.ENOTEMPTY}:
            raise SystemFailure(f"remove cgroup {directory}", error.errno or 0) from error
        children = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
        return bool(children) and all(_remove(child) for child in children) and _remove(directory)
    return True
