"""GET /containers/json: the table behind `docker ps`, its filters, and the words of its STATUS column."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterable
from typing import Any

from atoll.engine.containers import inspect, links
from atoll.engine.containers.config import parse_port
from atoll.engine.containers.inspect import Networking
from atoll.engine.containers.mounts import MountPoint
from atoll.engine.containers.record import Container, Status
from atoll.engine.containers.registry import Registry
from atoll.engine.filters import Filters
from atoll.errors import InvalidInput, NotFound

FILTERS = [
    "ancestor",
    "before",
    "expose",
    "exited",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
]
STATUSES = {status.value for status in Status} - {"creating", "starting"}


def summary(container: Container, networking: Networking, now_ns: int, linked: Iterable[str] = ()) -> dict[str, Any]:
    record = container.record
    return {
        "Id": record.id,
        "Names": [f"/{record.name}", *linked],
        "Image": record.image_name,
        "ImageID": record.image,
        "Command": shlex_join(inspect.command_line(record)),
        "Created": record.created_ns // 1_000_000_000,
        "Ports": list(_ports(inspect.ports(record, networking))) if container.is_up else [],
        "Labels": container.labels,
        "State": container.shown.value,
        "Status": status_text(container, now_ns),
        "HostConfig": {"NetworkMode": record.host["NetworkMode"]},
        "NetworkSettings": {"Networks": inspect.networks(record)},
        "Mounts": [MountPoint.from_row(row).wire() for row in record.mounts if row["type"] != "tmpfs"],
    }


def shlex_join(command: list[str]) -> str:
    """As Docker prints a command: words with blanks in single quotes."""
    return " ".join(shlex.quote(word) if " " in word else word for word in command)


def _ports(ports: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for key, bindings in sorted(ports.items(), key=lambda item: parse_port(item[0])):
        private, protocol = parse_port(key)
        if not bindings:
            yield {"PrivatePort": private, "Type": protocol}
        for binding in bindings or ():
            yield {"IP": binding["HostIp"], "PrivatePort": private, "PublicPort": int(binding["HostPort"]), "Type": protocol}


def status_text(container: Container, now_ns: int) -> str:
    """Such as "Up 2 hours (healthy)" or "Exited (137) 5 seconds ago", as Docker words it."""
    record, status = container.record, container.shown
    since_start, since_end = human_duration(now_ns - record.started_ns), human_duration(now_ns - record.finished_ns)
    if status is Status.RUNNING:
        health = f" ({container.health.shown})" if container.health is not None else ""
        return f"Up {since_start}{health}"
    if status is Status.PAUSED:
        return f"Up {since_start} (Paused)"
    if status is Status.RESTARTING:
        return f"Restarting ({record.exit_code}) {since_end} ago"
    if status is Status.EXITED:
        return f"Exited ({record.exit_code}) {since_end} ago"
    return {Status.REMOVING: "Removal In Progress", Status.DEAD: "Dead"}.get(status, "Created")


def human_duration(ns: int) -> str:
    seconds = max(ns, 0) // 1_000_000_000
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    minutes = seconds // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = round(seconds / 3600)
    for bound, unit, size in ((48, "hour", 1), (24 * 14, "day", 24), (24 * 60, "week", 24 * 7), (24 * 365 * 2, "month", 24 * 30)):
        if hours < bound:
            return f"About an {unit}" if unit == "hour" and hours == 1 else f"{hours // size} {unit}s"
    return f"{seconds / 3600 / 24 / 365:.0f} years"


class Listing:
    """The query. `networking(container)` tells ports; `ancestors(image name)` the ids of images that are it or are built on it."""

    def __init__(self, registry: Registry, networking: Callable[[Container], Networking], descends: Callable[[str, str], bool]) -> None:
        self._registry = registry
        self._networking = networking
        self._descends = descends

    def query(self, *, everything: bool = False, filters: Filters, limit: int | None = None, size: bool = False) -> list[dict[str, Any]]:
        shown = sorted((item for item in self._registry if item.status is not Status.CREATING), key=lambda item: -item.record.created_ns)
        for wanted in filters.get("status"):
            if wanted not in STATUSES:
                raise InvalidInput(f"invalid filter 'status={wanted}'")
        everything = everything or (limit or 0) > 0 or any(name in filters for name in ("status", "exited", "before", "since"))
        shown = [item for item in self._between(shown, filters) if (everything or item.is_up or item.shown is Status.RESTARTING)]
        shown = [item for item in shown if self._matches(item, filters)]
        if limit and limit > 0:
            shown = shown[:limit]
        now = time.time_ns()
        linked = links.names(self._registry)
        rows = [summary(item, self._networking(item), now, linked.get(item.name, ())) for item in shown]
        if size:
            for row, item in zip(rows, shown, strict=True):
                row["SizeRw"] = tree_size(str(item.paths.upper))
        return rows

    def _between(self, shown: list[Container], filters: Filters) -> list[Container]:
        for name, later in (("before", False), ("since", True)):
            for reference in filters.get(name):
                bound = self._registry.get(reference).record.created_ns
                shown = [item for item in shown if (item.record.created_ns > bound if later else item.record.created_ns < bound)]
        return shown

    def _matches(self, container: Container, filters: Filters) -> bool:
        if not filters:
            return True
        record = container.record
        volumes = [row["name"] for row in record.mounts] + [row["destination"] for row in record.mounts]
        attached = [*record.networking, *(settings.get("NetworkID", "") for settings in record.endpoints.values())]
        return (
            filters.prefix("id", record.id)
            and filters.pattern("name", record.name, f"/{record.name}")
            and filters.labels(container.labels)
            and filters.exact("status", container.shown.value)
            and filters.exact("exited", str(record.exit_code) if container.status is Status.EXITED else None)
            and filters.exact("volume", *volumes)
            and filters.exact("network", *attached)
            and filters.exact("health", container.health.shown.removeprefix("health: ") if container.health is not None else "none")
            and self._is_ancestor(container, filters)
            and self._has_port(container, filters)
            and (filters.flag("is-task") is not True)
        )

    def _is_ancestor(self, container: Container, filters: Filters) -> bool:
        wanted = filters.get("ancestor")
        if not wanted:
            return True
        for reference in wanted:
            try:
                if self._descends(container.record.image, reference):
                    return True
            except NotFound:
                continue
        return False

    def _has_port(self, container: Container, filters: Filters) -> bool:
        exposed, published = filters.get("expose"), filters.get("publish")
        if not exposed and not published:
            return True
        found = inspect.ports(container.record, self._networking(container))
        inside = {parse_port(port) for port in found}
        outside = {(int(item["HostPort"]), parse_port(port)[1]) for port, items in found.items() for item in items or ()}
        return all(
            any(port in known for port in _port_range(value))
            for values, known in ((exposed, inside), (published, outside))
            for value in values
        )


def _port_range(text: str) -> list[tuple[int, str]]:
    ports, _, protocol = text.partition("/")
    first, _, last = ports.partition("-")
    if not first.isdigit() or (last and not last.isdigit()) or int(last or first) > 65535:
        raise InvalidInput(f"invalid filter: '{text}' is not a port or a range of ports")
    return [(port, protocol or "tcp") for port in range(int(first), int(last or first) + 1)]


def tree_size(path: str) -> int:
    """Bytes of the files below `path`; what vanishes meanwhile is not counted."""
    total = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                total += tree_size(entry.path) if entry.is_dir(follow_symlinks=False) else entry.stat(follow_symlinks=False).st_size
    except (FileNotFoundError, NotADirectoryError):
        return total
    return total
