"""`ps` and what else looks at containers: `port`, `top`, `diff`, `container prune`."""

from __future__ import annotations

from atoll.cli import human
from atoll.cli.flags import Command, Flag, Options
from atoll.cli.output import show
from atoll.cli.session import CommandFailed, confirmed, engine, filters
from atoll.cli.table import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
)
COMMAND_WIDTH = 20  # characters, quotes not counted
TOP_COLUMN = 20  # docker's least width of a column of `top`


def listing() -> Command:
    flags = (
        Flag("all", "a", "bool", "Show all containers (default shows just running)"),
        Flag("filter", "f", "list", "Filter output based on conditions provided", "filter"),
        Flag("format", "", "string", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("last", "n", "int", "Show n last created containers (includes all states)"),
        Flag("latest", "l", "bool", "Show the latest created container (includes all states)"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("quiet", "q", "bool", "Only display container IDs"),
        Flag("size", "s", "bool", "Display total file sizes"),
    )
    return Command(_listing, "[OPTIONS]", "List containers", flags, maximum=0)


def _listing(options: Options, _: list[str]) -> int:
    limit = 1 if options["latest"] else options["last"]
    sizes = options["size"] or ".Size" in (options["format"] or "")
    query = {"all": options["all"] or limit is not None, "limit": limit, "filters": filters(options["filter"]), "size": sizes or None}
    rows = [row(container, full=options["no-trunc"]) for container in engine().get("/containers/json", query)]
    if options["quiet"] and not options["format"]:
        for found in rows:
            print(found["ID"])
        return 0
    show(rows, (*COLUMNS, ("SIZE", "Size")) if options["size"] else COLUMNS, options["format"])
    return 0


def row(container: dict[str, Any], *, full: bool) -> dict[str, Any]:
    """Docker's template fields of one container."""
    command = container["Command"]
    if not full and len(command) > COMMAND_WIDTH:
        command = command[: COMMAND_WIDTH - 1] + "…"
    labels = container.get("Labels") or {}
    mounts = [mount.get("Name") or mount.get("Source") or "" for mount in container.get("Mounts") or []]
    names = [name.lstrip("/") for name in container.get("Names") or []]
    return {
        "ID": container["Id"] if full else human.short_id(container["Id"]),
        "Image": container["Image"]
        if full
        else human.short_id(container["Image"])
        if container["Image"][:7] == "sha256:"
        else container["Image"],
        "Command": f'"{command}"',
        "CreatedAt": _local(container["Created"]),
        "RunningFor": human.ago(container["Created"]),
        "Status": container["Status"],
        "State": container["State"],
        "Ports": ports(container.get("Ports") or []),
        "Names": ",".join(name for name in names if full or "/" not in name),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Label": lambda name: labels.get(name, ""),
        "LocalVolumes": str(sum(1 for mount in container.get("Mounts") or [] if mount.get("Driver") == "local")),
        "Mounts": ",".join(mounts),
        "Networks": ",".join((container.get("NetworkSettings") or {}).get("Networks") or {}),
        "Size": _sizes(container),
    }


def _local(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def _sizes(container: dict[str, Any]) -> str:
    used, virtual = container.get("SizeRw") or 0, container.get("SizeRootFs") or 0
    return f"{human.size(used)} (virtual {human.size(virtual)})" if virtual else human.size(used)


def ports(found: list[dict[str, Any]]) -> str:
    """`0.0.0.0:8080->80/tcp, 443/tcp`, runs of neighbours joined to ranges."""
    published, exposed = [], []
    for port in found:
        if port.get("PublicPort"):
            published.append((port.get("IP") or "", port["PublicPort"], port["PrivatePort"], port["Type"]))
        else:
            exposed.append((port["PrivatePort"], port["Type"]))
    words = []
    runs: list[list[tuple[str, int, int, str]]] = []
    for one in sorted(published, key=lambda port: (":" in port[0], port[0], port[3], port[2], port[1])):
        last = runs[-1][-1] if runs else None
        if last and last[0] == one[0] and last[3] == one[3] and last[1] + 1 == one[1] and last[2] + 1 == one[2]:
            runs[-1].append(one)
        else:
            runs.append([one])
    for run in runs:
        address, outside, inside, protocol = run[0]
        host = f"[{address}]" if ":" in address else address
        if len(run) > 1:
            words.append(f"{host}:{outside}-{run[-1][1]}->{inside}-{run[-1][2]}/{protocol}")
        else:
            words.append(f"{host}:{outside}->{inside}/{protocol}")
    words += [f"{inside}/{protocol}" for inside, protocol in sorted(exposed)]
    return ", ".join(words)


def port() -> Command:
    return Command(
        _port, "CONTAINER [PRIVATE_PORT[/PROTO]]", "List port mappings or a specific mapping for the container", minimum=1, maximum=2
    )


def _port(_: Options, words: list[str]) -> int:
    bindings = engine().get(f"/containers/{words[0]}/json")["NetworkSettings"]["Ports"] or {}
    if len(words) == 2:
        wanted = words[1] if "/" in words[1] else f"{words[1]}/tcp"
        if not bindings.get(wanted):
            raise CommandFailed(f"no public port '{wanted}' published for {words[0]}")
        print("\n".join(_endpoint(one) for one in bindings[wanted]))
        return 0
    for name in sorted(bindings):
        for one in bindings[name] or []:
            print(f"{name} -> {_endpoint(one)}")
    return 0


def _endpoint(binding: dict[str, str]) -> str:
    host = binding["HostIp"] or "0.0.0.0"
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


def top() -> Command:
    flags = (Flag("watch", "w", "bool", "Look again every second, and show it in place"),)
    summary = "Display the running processes of a container"
    return Command(_top, "[OPTIONS] CONTAINER [ps OPTIONS]", summary, flags, minimum=1, interspersed=False)


def _top(options: Options, words: list[str]) -> int:
    client, query = engine(), {"ps_args": " ".join(words[1:]) or None}

    def look() -> str:
        found = client.get(f"/containers/{words[0]}/top", query)
        return table(found["Titles"], found["Processes"] or [], minimum=TOP_COLUMN)

    if not options["watch"]:
        print(look())
        return 0
    from atoll.cli.screen import Screen

    Screen().show_every_second(look)
    return 0


def diff() -> Command:
    return Command(_diff, "CONTAINER", "Inspect changes to files or directories on a container's filesystem", minimum=1, maximum=1)


def _diff(_: Options, words: list[str]) -> int:
    for change in engine().get(f"/containers/{words[0]}/changes") or []:
        print("CAD"[change["Kind"]], change["Path"])
    return 0


def prune() -> Command:
    flags = (
        Flag("filter", "", "list", 'Provide filter values (e.g. "until=<timestamp>")', "filter"),
        Flag("force", "f", "bool", "Do not prompt for confirmation"),
    )
    return Command(_prune, "[OPTIONS]", "Remove all stopped containers", flags, maximum=0)


def _prune(options: Options, _: list[str]) -> int:
    if not confirmed("This will remove all stopped containers.", options["force"]):
        return 1
    found = engine().post("/containers/prune", {"filters": filters(options["filter"])})
    if found["ContainersDeleted"]:
        print("Deleted Containers:", *found["ContainersDeleted"], sep="\n", end="\n\n")
    print("Total reclaimed space:", human.size(found["SpaceReclaimed"]))
    return 0
