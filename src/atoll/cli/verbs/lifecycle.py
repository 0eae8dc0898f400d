"""Verbs that move containers from one state to another: stop, restart, kill, rm, pause, unpause, wait, rename, update."""

from __future__ import annotations

import sys

from atoll.cli.flags import Command, Flag, Options
from atoll.cli.session import each, engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MANY = "CONTAINER [CONTAINER...]"
SIGNAL = Flag("signal", "s", "string", "Signal to send to the container")
TIME = Flag("time", "t", "int", "Seconds to wait before killing the container")
TIMEOUT = Flag("timeout", "", "int", "Seconds to wait before killing the container")


def _post(action: str, query: Callable[[Options], dict[str, object]] | None = None) -> Callable[[Options, list[str]], int]:
    def act(options: Options, names: list[str]) -> int:
        client = engine()
        return each(names, lambda name: client.post(f"/containers/{name}/{action}", query(options) if query else None))

    return act


def _grace(options: Options) -> dict[str, object]:
    seconds = options["timeout"] if options["timeout"] is not None else options["time"]
    return {"signal": options["signal"], "t": seconds}


def stop() -> Command:
    return Command(_post("stop", _grace), f"[OPTIONS] {MANY}", "Stop one or more running containers", (SIGNAL, TIME, TIMEOUT), minimum=1)


def restart() -> Command:
    return Command(_post("restart", _grace), f"[OPTIONS] {MANY}", "Restart one or more containers", (SIGNAL, TIME, TIMEOUT), minimum=1)


def kill() -> Command:
    act = _post("kill", lambda options: {"signal": options["signal"] or "KILL"})
    return Command(act, f"[OPTIONS] {MANY}", "Kill one or more running containers", (SIGNAL,), minimum=1)


def pause() -> Command:
    return Command(_post("pause"), MANY, "Pause all processes within one or more containers", minimum=1)


def unpause() -> Command:
    return Command(_post("unpause"), MANY, "Unpause all processes within one or more containers", minimum=1)


def wait() -> Command:
    return Command(_wait, MANY, "Block until one or more containers stop, then print their exit codes", minimum=1)


def _wait(_: Options, names: list[str]) -> int:
    client = engine()
    return each(names, lambda name: client.post(f"/containers/{name}/wait")["StatusCode"])


def rename() -> Command:
    return Command(_rename, "CONTAINER NEW_NAME", "Rename a container", minimum=2, maximum=2)


def _rename(_: Options, words: list[str]) -> int:
    engine().post(f"/containers/{words[0]}/rename", {"name": words[1]})
    return 0


def remove() -> Command:
    flags = (
        Flag("force", "f", "bool", "Force the removal of a running container (uses SIGKILL)"),
        Flag("link", "l", "bool", "Remove the specified link"),
        Flag("volumes", "v", "bool", "Remove anonymous volumes associated with the container"),
    )
    return Command(_remove, f"[OPTIONS] {MANY}", "Remove one or more containers", flags, minimum=1)


def _remove(options: Options, names: list[str]) -> int:
    client = engine()
    query = {"force": options["force"], "v": options["volumes"], "link": options["link"] or None}

    def act(name: str) -> str | None:
        from atoll.cli.wire import EngineError

        try:
            client.delete(f"/containers/{name}", query)
        except EngineError as error:
            if error.status != 404 or not options["force"]:
                raise
            print(f"Error response from daemon: {error}", file=sys.stderr)  # said, but what was wanted is so
            return ""
        return None

    return each(names, act)


PLAIN_LIMITS = (
    ("blkio-weight", "BlkioWeight"),
    ("cpu-period", "CpuPeriod"),
    ("cpu-quota", "CpuQuota"),
    ("cpu-rt-period", "CpuRealtimePeriod"),
    ("cpu-rt-runtime", "CpuRealtimeRuntime"),
    ("cpu-shares", "CpuShares"),
    ("cpuset-cpus", "CpusetCpus"),
    ("cpuset-mems", "CpusetMems"),
    ("pids-limit", "PidsLimit"),
)


def update() -> Command:
    flags = (
        Flag("blkio-weight", "", "int", "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)", "uint16"),
        Flag("cpu-period", "", "int", "Limit the CPU CFS (Completely Fair Scheduler) period"),
        Flag("cpu-quota", "", "int", "Limit the CPU CFS (Completely Fair Scheduler) quota"),
        Flag("cpu-rt-period", "", "int", "Limit the CPU real-time period in microseconds"),
        Flag("cpu-rt-runtime", "", "int", "Limit the CPU real-time runtime in microseconds"),
        Flag("cpu-shares", "c", "int", "CPU shares (relative weight)"),
        Flag("cpus", "", "string", "Number of CPUs", "decimal"),
        Flag("cpuset-cpus", "", "string", "CPUs in which to allow execution (0-3, 0,1)"),
        Flag("cpuset-mems", "", "string", "MEMs in which to allow execution (0-3, 0,1)"),
        Flag("memory", "m", "string", "Memory limit", "bytes"),
        Flag("memory-reservation", "", "string", "Memory soft limit", "bytes"),
        Flag("memory-swap", "", "string", "Swap limit equal to memory plus swap: -1 to enable unlimited swap", "bytes"),
        Flag("pids-limit", "", "int", "Tune container pids limit (set -1 for unlimited)"),
        Flag("restart", "", "string", "Restart policy to apply when a container exits"),
    )
    return Command(_update, f"[OPTIONS] {MANY}", "Update configuration of one or more containers", flags, minimum=1)


def _update(options: Options, names: list[str]) -> int:
    from atoll.cli.containerbody import nano_cpus, restart_policy, size

    body: dict[str, object] = {}
    for flag, field in PLAIN_LIMITS:
        if options[flag] is not None:
            body[field] = options[flag]
    for flag, field in (("memory", "Memory"), ("memory-reservation", "MemoryReservation"), ("memory-swap", "MemorySwap")):
        if options[flag] is not None:
            body[field] = size(options, flag)
    if options["cpus"] is not None:
        body["NanoCpus"] = nano_cpus(options["cpus"])
    if options["restart"] is not None:
        body["RestartPolicy"] = restart_policy(options["restart"])
    client = engine()

    def act(name: str) -> None:
        for warning in client.post(f"/containers/{name}/update", body=body).get("Warnings") or []:
            print(f"WARNING: {warning}", file=sys.stderr)

    return each(names, act)
