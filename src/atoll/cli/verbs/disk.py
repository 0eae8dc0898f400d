"""`system df`: what images, containers, volumes and the build cache take on the disk, in sum or one by one."""

from __future__ import annotations

from atoll.cli import human
from atoll.cli.flags import Command, Flag, Options
from atoll.cli.session import engine
from atoll.cli.table import table
from atoll.cli.verbs.containers import row as shown
from atoll.cli.verbs.system import formatted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def disk() -> Command:
    flags = (
        Flag("format", "", "string", "Format output using a custom template: 'json' or a Go template"),
        Flag("verbose", "v", "bool", "Show detailed information on space usage"),
    )
    return Command(_disk, "[OPTIONS]", "Show disk usage", flags, maximum=0)


def _disk(options: Options, _: list[str]) -> int:
    found = engine().get("/system/df")
    images, containers = found.get("Images") or [], found.get("Containers") or []
    volumes, cache = found.get("Volumes") or [], found.get("BuildCache") or []
    if options["verbose"]:
        _disk_verbose(images, containers, volumes, cache)
        return 0
    idle_images = sum(image["Size"] - max(image.get("SharedSize", 0), 0) for image in images if not image.get("Containers"))
    stopped = [one for one in containers if one["State"] not in ("running", "paused", "restarting")]
    idle_volumes = [one for one in volumes if not one["UsageData"]["RefCount"]]
    rows = [
        _usage("Images", len(images), sum(1 for one in images if one.get("Containers")), found.get("LayersSize") or 0, idle_images),
        _usage(
            "Containers",
            len(containers),
            len(containers) - len(stopped),
            sum(one.get("SizeRw") or 0 for one in containers),
            sum(one.get("SizeRw") or 0 for one in stopped),
        ),
        _usage(
            "Local Volumes",
            len(volumes),
            len(volumes) - len(idle_volumes),
            sum(one["UsageData"]["Size"] for one in volumes),
            sum(one["UsageData"]["Size"] for one in idle_volumes),
        ),
        _usage(
            "Build Cache",
            len(cache),
            sum(1 for one in cache if one.get("InUse")),
            sum(one["Size"] for one in cache),
            sum(one["Size"] for one in cache if not one.get("InUse")),
        ),
    ]
    heads = ("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE")
    keys = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
    if options["format"] and options["format"] != "table":
        for row in rows:
            formatted(options["format"], dict(zip(keys, row, strict=True)))
        return 0
    print(table(heads, rows))
    return 0


def _usage(name: str, total: int, active: int, size: int, reclaimable: int) -> tuple[str, str, str, str, str]:
    share = f" ({reclaimable * 100 // size}%)" if size else ""
    return name, str(total), str(active), human.size(size), human.size(max(reclaimable, 0)) + share


def _disk_verbose(images: list[Any], containers: list[Any], volumes: list[Any], cache: list[Any]) -> None:
    rows = []
    for image in images:
        repository, _, label = (image.get("RepoTags") or ["<none>:<none>"])[0].rpartition(":")
        shared = max(image.get("SharedSize", 0), 0)
        rows.append(
            (
                repository,
                label,
                human.short_id(image["Id"]),
                human.ago(image["Created"]),
                human.size(image["Size"]),
                human.size(shared),
                human.size(image["Size"] - shared),
                str(max(image.get("Containers", 0), 0)),
            )
        )
    print("Images space usage:\n")
    print(table(("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"), rows))
    print("\nContainers space usage:\n")
    fields = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
    listed = [[str(shown(one, full=False)[field]).partition(" (virtual")[0] for field in fields] for one in containers]
    print(table(("CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"), listed))
    print("\nLocal Volumes space usage:\n")
    kept = [(one["Name"], str(one["UsageData"]["RefCount"]), human.size(one["UsageData"]["Size"])) for one in volumes]
    print(table(("VOLUME NAME", "LINKS", "SIZE"), kept))
    print(f"\nBuild cache usage: {human.size(sum(one['Size'] for one in cache))}\n")
    print(table(("CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"), [_cached(one) for one in cache]))


def _cached(one: dict[str, Any]) -> tuple[str, ...]:
    used = one.get("LastUsedAt") or ""
    return (
        one["ID"][:12],
        one.get("Type") or "",
        human.size(one["Size"]),
        human.ago(human.moment(one.get("CreatedAt") or "")),
        human.ago(human.moment(used)) if used else "",
        str(one.get("UsageCount") or 0),
        str(bool(one.get("Shared"))).lower(),
    )
