"""Verbs on volumes."""

from __future__ import annotations

from atoll.cli import human
from atoll.cli.flags import Command, Flag, Options
from atoll.cli.keyvalues import mapping
from atoll.cli.output import show
from atoll.cli.session import confirmed, each, engine, filters

COLUMNS = (("DRIVER", "Driver"), ("VOLUME NAME", "Name"))


def listing() -> Command:
    flags = (
        Flag("filter", "f", "list", 'Provide filter values (e.g. "dangling=true")', "filter"),
        Flag("format", "", "string", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("quiet", "q", "bool", "Only display volume names"),
    )
    return Command(_listing, "[OPTIONS]", "List volumes", flags, maximum=0)


def _listing(options: Options, _: list[str]) -> int:
    found = engine().get("/volumes", {"filters": filters(options["filter"])})["Volumes"] or []
    rows = [
        {
            "Driver": volume["Driver"],
            "Name": volume["Name"],
            "Mountpoint": volume["Mountpoint"],
            "Scope": volume.get("Scope", "local"),
            "Labels": ",".join(f"{key}={value}" for key, value in sorted((volume.get("Labels") or {}).items())),
        }
        for volume in sorted(found, key=lambda volume: volume["Name"])
    ]
    if options["quiet"]:
        for row in rows:
            print(row["Name"])
        return 0
    show(rows, COLUMNS, options["format"])
    return 0


def create() -> Command:
    flags = (
        Flag("driver", "d", "string", "Specify volume driver name"),
        Flag("label", "", "list", "Set metadata for a volume"),
        Flag("name", "", "string", "Specify volume name"),
        Flag("opt", "o", "list", "Set driver specific options", "map"),
    )
    return Command(_create, "[OPTIONS] [VOLUME]", "Create a volume", flags, maximum=1)


def _create(options: Options, words: list[str]) -> int:
    body = {
        "Name": words[0] if words else options["name"] or "",
        "Driver": options["driver"] or "local",
        "DriverOpts": mapping(options["opt"]),
        "Labels": mapping(options["label"]),
    }
    print(engine().post("/volumes/create", body=body)["Name"])
    return 0


def remove() -> Command:
    flags = (Flag("force", "f", "bool", "Force the removal of one or more volumes"),)
    return Command(_remove, "[OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes", flags, minimum=1)


def _remove(options: Options, names: list[str]) -> int:
    client = engine()
    return each(names, lambda name: client.delete(f"/volumes/{name}", {"force": options["force"]}))


def prune() -> Command:
    flags = (
        Flag("all", "a", "bool", "Remove all unused volumes, not just anonymous ones"),
        Flag("filter", "", "list", 'Provide filter values (e.g. "label=<label>")', "filter"),
        Flag("force", "f", "bool", "Do not prompt for confirmation"),
    )
    return Command(_prune, "[OPTIONS]", "Remove unused local volumes", flags, maximum=0)


def _prune(options: Options, _: list[str]) -> int:
    which = "all local volumes" if options["all"] else "anonymous local volumes"
    if not confirmed(f"This will remove {which} not used by at least one container.", options["force"]):
        return 1
    wanted = filters(options["filter"]) or {}
    if options["all"]:
        wanted["all"] = ["true"]
    found = engine().post("/volumes/prune", {"filters": wanted or None})
    if found.get("VolumesDeleted"):
        print("Deleted Volumes:", *found["VolumesDeleted"], sep="\n", end="\n\n")
    print("Total reclaimed space:", human.size(found.get("SpaceReclaimed") or 0))
    return 0
