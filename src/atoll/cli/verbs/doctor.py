"""`doctor`: what this machine allows, what is missing, and what to do about it. Exit status 1 where something needed is missing."""

from __future__ import annotations

import json
import os
import shutil
import sys

from atoll.cli import human
from atoll.cli.flags import Command, Flag, Options
from atoll.cli.start import NEEDS_ROOT
from atoll.home import ENGINE_SOCKET, home_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from atoll.kernel.probe import Machine

OK, WARNING, PROBLEM = "ok", "warning", "problem"
LOW_DISK = 5 << 30  # bytes; a notebook image with its layers takes about two
NEEDED_CAPABILITIES = frozenset({"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_CHOWN", "CAP_MKNOD", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_CHROOT"})
MARKS = {OK: "✓", WARNING: "!", PROBLEM: "✗"}
COLOURS = {OK: "32", WARNING: "33", PROBLEM: "31"}

Finding = tuple[str, str, str, str]  # state, subject, what was seen, what to do


def doctor() -> Command:
    flags = (Flag("format", "", "string", "'json' for machines"),)
    return Command(_doctor, "[OPTIONS]", "Tell what this machine allows, what is missing, and what to do", flags, maximum=0)


def _doctor(options: Options, _: list[str]) -> int:
    from atoll.kernel.probe import look

    home = home_directory(os.environ)
    findings = [*_kernel(look(home)), *_libraries(), *_programs(), *_devices(home), *_surroundings(home)]
    if options["format"] == "json":
        print(json.dumps([dict(zip(("state", "subject", "seen", "advice"), finding, strict=True)) for finding in findings]))
    else:
        width = max(len(subject) for _, subject, _, _ in findings)
        for state, subject, seen, advice in findings:
            mark = f"\033[{COLOURS[state]}m{MARKS[state]}\033[0m" if sys.stdout.isatty() else MARKS[state]
            print(f"{mark} {subject:<{width}}  {seen}")
            if advice:
                print(f"  {'':<{width}}  -> {advice}")
    return 1 if any(state == PROBLEM for state, *_ in findings) else 0


def _kernel(machine: Machine) -> Iterator[Finding]:
    if machine.root:
        yield OK, "user", "root", ""
    else:
        yield PROBLEM, "user", f"uid {os.geteuid()}", NEEDS_ROOT
    missing = sorted(NEEDED_CAPABILITIES - machine.capabilities)
    if missing and machine.root:
        yield PROBLEM, "capabilities", f"without {', '.join(missing)}", "this root is confined: start the outer container with --privileged"
    major, minor = (int(part) for part in machine.kernel.split("-")[0].split(".")[:2])
    if (major, minor) >= (5, 12):
        yield OK, "kernel", f"{machine.kernel}, {machine.architecture}", ""
    else:
        yield PROBLEM, "kernel", machine.kernel, "Linux 5.12 or newer is needed (mount_setattr)"
    wanted = {"mnt", "pid", "net", "ipc", "uts"} & set(machine.missing_namespaces)
    if wanted:
        yield PROBLEM, "namespaces", f"without {', '.join(sorted(wanted))}", "this kernel was built without them"
    elif machine.missing_namespaces:
        yield WARNING, "namespaces", f"without {', '.join(machine.missing_namespaces)}", "containers run without these"
    else:
        yield OK, "namespaces", "all", ""
    yield from _cgroups(machine)
    if machine.overlay:
        yield OK, "overlayfs", "there", ""
    else:
        yield PROBLEM, "overlayfs", "missing", "load it: modprobe overlay"
    if not machine.seccomp:
        yield WARNING, "seccomp", "missing", "containers run without a system-call filter; a kernel with CONFIG_SECCOMP_FILTER has it"


def _cgroups(machine: Machine) -> Iterator[Finding]:
    lacking = sorted({"memory", "cpu", "pids"} - machine.controllers)
    if machine.cgroup_mode == "none":
        yield WARNING, "cgroups", "not mounted", "containers run without limits: mount cgroup2 on /sys/fs/cgroup"
    elif not machine.cgroups_writable:
        yield WARNING, "cgroups", f"{machine.cgroup_mode}, read-only", "limits on memory and CPU are refused: remount /sys/fs/cgroup rw"
    elif lacking:
        yield WARNING, "cgroups", f"{machine.cgroup_mode}, without {', '.join(lacking)}", "limits on these are refused"
    else:
        yield OK, "cgroups", f"{machine.cgroup_mode}: {', '.join(sorted(machine.controllers))}", ""


def _libraries() -> Iterator[Finding]:
    from atoll.kernel.probe import has_library

    for name, package, without in (
        ("libnftables.so.1", "libnftables1", "ports are published by a slower relay, and services have no addresses"),
        ("libseccomp.so.2", "libseccomp2", "containers start only with --security-opt seccomp=unconfined"),
    ):
        if has_library(name):
            yield OK, package, "there", ""
        else:
            yield WARNING, package, f"missing: {without}", f"apt-get install {package}"


def _programs() -> Iterator[Finding]:
    for name, need in (("mmdebstrap", "atoll image bootstrap"), ("git", "git contexts of atoll build")):
        path = shutil.which(name)
        if path:
            yield OK, name, path, ""
        else:
            yield WARNING, name, f"missing: needed for {need}", f"apt-get install {name}"


def _devices(home: str) -> Iterator[Finding]:
    """OCI runtimes beside our own, and what `--gpus` and `--device vendor/class=name` can give."""
    from pathlib import Path

    from atoll.engine import runtimes
    from atoll.engine.settings import Settings
    from atoll.errors import AtollError
    from atoll.runtime.cdi import Catalogue

    try:
        settings = Settings.load(Path(home) / "engine.toml")
    except AtollError as error:
        yield PROBLEM, "settings", str(error), "mend the file: the engine does not start with it"
        return
    others = runtimes.others(settings)
    if others:
        yield OK, "runtimes", ", ".join((runtimes.OWN, *others)), ""
    catalogue = Catalogue.read(settings.cdi_directories)
    if catalogue.devices:
        yield OK, "devices", f"by CDI: {', '.join(sorted(catalogue.devices))}", ""
    for problem in catalogue.problems:
        yield WARNING, "devices", problem, "mend the file, or take it away"
    if os.path.exists("/dev/nvidiactl") and not any(name.startswith("nvidia.com/gpu=") for name in catalogue.devices):
        yield (
            WARNING,
            "devices",
            "an NVIDIA GPU that no CDI file describes: --gpus cannot give it",
            "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        )


def _surroundings(home: str) -> Iterator[Finding]:
    from atoll.kernel.probe import look
    from atoll.runtime.trust import host_trust

    free = look(home).free_bytes
    state, advice = (OK, "") if free > LOW_DISK else (WARNING, "free some: atoll system prune, or set ATOLL_HOME to another disk")
    yield state, "disk", f"{human.size(free)} free for {home}", advice
    if host_trust():
        yield OK, "trust", "this host's extra certificate authorities and pip index are passed to containers and builds", ""
    socket = os.path.join(home, ENGINE_SOCKET)
    yield OK, "engine", f"running at {socket}" if os.path.exists(socket) else "not running; it starts by itself", ""
