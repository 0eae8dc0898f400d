"""`stats`: what containers use, one line each, looked at all at once and shown in place."""

from __future__ import annotations

import threading

from atoll.cli import human
from atoll.cli.flags import Command, Flag, Options
from atoll.cli.output import show
from atoll.cli.session import engine
from atoll.cli.wire import Engine, EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATS = (
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
)


def stats() -> Command:
    flags = (
        Flag("all", "a", "bool", "Show all containers (default shows just running)"),
        Flag("format", "", "string", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("no-stream", "", "bool", "Disable streaming stats and only pull the first result"),
        Flag("no-trunc", "", "bool", "Do not truncate output"),
    )
    return Command(_stats, "[OPTIONS] [CONTAINER...]", "Display a live stream of container(s) resource usage statistics", flags)


def _stats(options: Options, names: list[str]) -> int:
    client = engine()
    if options["no-stream"]:
        _print(_sample(client, names or _listed(client, options)), options)
        return 0
    from atoll.cli.screen import Screen

    board = _Board(client)

    def look() -> str:
        # Without names whatever starts joins in, and what has gone goes.
        board.watch(names or _listed(client, options))
        return "\n".join(_lines(board.samples(), options))

    board.watch(names or _listed(client, options))
    board.wait_first()
    Screen().show_every_second(look)
    return 0


def _listed(client: Engine, options: Options) -> list[str]:
    return [found["Id"] for found in client.get("/containers/json", {"all": options["all"]})]


def _print(samples: list[dict[str, Any]], options: Options) -> None:
    show([usage(sample, full=options["no-trunc"]) for sample in samples], STATS, options["format"])


def _lines(samples: list[dict[str, Any]], options: Options) -> list[str]:
    from contextlib import redirect_stdout
    from io import StringIO

    with redirect_stdout(StringIO()) as written:
        _print(samples, options)
    return written.getvalue().splitlines()


def _sample(client: Engine, names: list[str]) -> list[dict[str, Any]]:
    """One sample of each. The engine takes two readings a second apart for it: all at once, or fifty would take a minute."""
    found: dict[str, dict[str, Any] | EngineError] = {}

    def ask(name: str) -> None:
        try:
            found[name] = client.get(f"/containers/{name}/stats", {"stream": False})
        except EngineError as error:
            found[name] = error

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    samples = []
    for name in names:
        one = found[name]
        if isinstance(one, EngineError):
            raise one
        samples.append(one)
    return samples


class _Board:
    """The latest sample of each container that is watched, brought by a thread each."""

    def __init__(self, client: Engine) -> None:
        self._client = client
        self._watched: dict[str, dict[str, Any] | None] = {}
        self._order: list[str] = []
        self._first = threading.Event()

    def watch(self, names: list[str]) -> None:
        self._order = names
        for name in names:
            if name not in self._watched:
                self._watched[name] = None
                threading.Thread(target=self._follow, args=(name,), daemon=True).start()

    def wait_first(self) -> None:
        """Until there is something to show, or two seconds."""
        self._first.wait(2 if self._order else 0)

    def samples(self) -> list[dict[str, Any]]:
        found = (self._watched.get(name) for name in self._order)
        return [sample for sample in found if sample is not None]

    def _follow(self, name: str) -> None:
        try:
            reply = self._client.request("GET", f"/containers/{name}/stats", {"stream": True})
            for sample in reply.lines():
                self._watched[name] = sample
                self._first.set()
        except (EngineError, OSError):
            pass  # it is gone, or the engine is: its line goes
        self._watched.pop(name, None)
        self._first.set()


def usage(sample: dict[str, Any], *, full: bool = False) -> dict[str, Any]:
    """Docker's arithmetic over one stats sample (docker/cli, stats_helpers)."""
    cpu, before = sample.get("cpu_stats") or {}, sample.get("precpu_stats") or {}
    spent = cpu.get("cpu_usage", {}).get("total_usage", 0) - before.get("cpu_usage", {}).get("total_usage", 0)
    passed = (cpu.get("system_cpu_usage") or 0) - (before.get("system_cpu_usage") or 0)
    share = spent / passed * (cpu.get("online_cpus") or 1) * 100 if passed > 0 and spent > 0 else 0.0
    memory = sample.get("memory_stats") or {}
    detail = memory.get("stats") or {}
    used = memory.get("usage", 0) - detail.get("total_inactive_file", detail.get("inactive_file", 0))
    limit = memory.get("limit") or 0
    received = sum(one["rx_bytes"] for one in (sample.get("networks") or {}).values())
    sent = sum(one["tx_bytes"] for one in (sample.get("networks") or {}).values())
    blocks = (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    read = sum(one["value"] for one in blocks if one["op"].lower() == "read")
    written = sum(one["value"] for one in blocks if one["op"].lower() == "write")
    return {
        "ID": sample["id"] if full else human.short_id(sample["id"]),
        "Container": human.short_id(sample["id"]),
        "Name": sample["name"].lstrip("/"),
        "CPUPerc": f"{share:.2f}%",
        "MemUsage": f"{human.binary_size(used)} / {human.binary_size(limit)}",
        "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{human.size(received)} / {human.size(sent)}",
        "BlockIO": f"{human.size(read)} / {human.size(written)}",
        "PIDs": str((sample.get("pids_stats") or {}).get("current", 0)),
    }
