"""Verbs on networks."""

from __future__ import annotations

from atoll.cli import human
from atoll.cli.flags import Command, Flag, Options
from atoll.cli.keyvalues import mapping
from atoll.cli.output import show
from atoll.cli.session import confirmed, each, engine, filters

COLUMNS = (("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope"))


def listing() -> Command:
    flags = (
        Flag("filter", "f", "list", 'Provide filter values (e.g. "driver=bridge")', "filter"),
        Flag("format", "", "string", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("no-trunc", "", "bool", "Do not truncate the output"),
        Flag("quiet", "q", "bool", "Only display network IDs"),
    )
    return Command(_listing, "[OPTIONS]", "List networks", flags, maximum=0)


def _listing(options: Options, _: list[str]) -> int:
    found = engine().get("/networks", {"filters": filters(options["filter"])})
    rows = [
        {
            "ID": network["Id"] if options["no-trunc"] else human.short_id(network["Id"]),
            "Name": network["Name"],
            "Driver": network["Driver"],
            "Scope": network["Scope"],
            "Internal": network.get("Internal", False),
            "IPv6": network.get("EnableIPv6", False),
            "CreatedAt": network.get("Created", ""),
            "Labels": ",".join(f"{key}={value}" for key, value in sorted((network.get("Labels") or {}).items())),
        }
        for network in sorted(found, key=lambda network: network["Name"])
    ]
    if options["quiet"]:
        for row in rows:
            print(row["ID"])
        return 0
    show(rows, COLUMNS, options["format"])
    return 0


def create() -> Command:
    flags = (
        Flag("attachable", "", "bool", "Enable manual container attachment"),
        Flag("aux-address", "", "list", "Auxiliary IPv4 or IPv6 addresses used by Network driver", "map"),
        Flag("driver", "d", "string", "Driver to manage the Network"),
        Flag("gateway", "", "list", "IPv4 or IPv6 Gateway for the master subnet"),
        Flag("internal", "", "bool", "Restrict external access to the network"),
        Flag("ip-range", "", "list", "Allocate container ip from a sub-range"),
        Flag("ipv6", "", "bool", "Enable or disable IPv6 address assignment"),
        Flag("label", "", "list", "Set metadata on a network"),
        Flag("opt", "o", "list", "Set driver specific options", "map"),
        Flag("subnet", "", "list", "Subnet in CIDR format that represents a network segment"),
    )
    return Command(_create, "[OPTIONS] NETWORK", "Create a network", flags, minimum=1, maximum=1)


def _create(options: Options, words: list[str]) -> int:
    pools = []
    for index, subnet in enumerate(options["subnet"]):
        pool = {"Subnet": subnet}
        if index < len(options["gateway"]):
            pool["Gateway"] = options["gateway"][index]
        if index < len(options["ip-range"]):
            pool["IPRange"] = options["ip-range"][index]
        if index == 0 and options["aux-address"]:
            pool["AuxiliaryAddresses"] = mapping(options["aux-address"])
        pools.append(pool)
    body = {
        "Name": words[0],
        "Driver": options["driver"] or "bridge",
        "Internal": options["internal"],
        "Attachable": options["attachable"],
        "EnableIPv6": options["ipv6"],
        "Options": mapping(options["opt"]),
        "Labels": mapping(options["label"]),
        "IPAM": {"Driver": "default", "Config": pools},
    }
    print(engine().post("/networks/create", body=body)["Id"])
    return 0


def remove() -> Command:
    flags = (Flag("force", "f", "bool", "Do not error if the network does not exist"),)
    return Command(_remove, "NETWORK [NETWORK...]", "Remove one or more networks", flags, minimum=1)


def _remove(options: Options, names: list[str]) -> int:
    from atoll.cli.wire import EngineError

    client = engine()

    def act(name: str) -> None:
        try:
            client.delete(f"/networks/{name}")
        except EngineError as error:
            if error.status != 404 or not options["force"]:
                raise

    return each(names, act)


def connect() -> Command:
    flags = (
        Flag("alias", "", "list", "Add network-scoped alias for the container"),
        Flag("ip", "", "string", 'IPv4 address (e.g., "172.30.100.104")'),
    )
    return Command(_connect, "[OPTIONS] NETWORK CONTAINER", "Connect a container to a network", flags, minimum=2, maximum=2)


def _connect(options: Options, words: list[str]) -> int:
    endpoint: dict[str, object] = {"Aliases": options["alias"]} if options["alias"] else {}
    if options["ip"]:
        endpoint["IPAMConfig"] = {"IPv4Address": options["ip"]}
    engine().post(f"/networks/{words[0]}/connect", body={"Container": words[1], "EndpointConfig": endpoint})
    return 0


def disconnect() -> Command:
    flags = (Flag("force", "f", "bool", "Force the container to disconnect from a network"),)
    return Command(_disconnect, "[OPTIONS] NETWORK CONTAINER", "Disconnect a container from a network", flags, minimum=2, maximum=2)


def _disconnect(options: Options, words: list[str]) -> int:
    engine().post(f"/networks/{words[0]}/disconnect", body={"Container": words[1], "Force": options["force"]})
    return 0


def prune() -> Command:
    flags = (
        Flag("filter", "", "list", 'Provide filter values (e.g. "until=<timestamp>")', "filter"),
        Flag("force", "f", "bool", "Do not prompt for confirmation"),
    )
    return Command(_prune, "[OPTIONS]", "Remove all unused networks", flags, maximum=0)


def _prune(options: Options, _: list[str]) -> int:
    if not confirmed("This will remove all custom networks not used by at least one container.", options["force"]):
        return 1
    found = engine().post("/networks/prune", {"filters": filters(options["filter"])})
    if found.get("NetworksDeleted"):
        print("Deleted Networks:", *found["NetworksDeleted"], sep="\n", end="\n\n")
    return 0
