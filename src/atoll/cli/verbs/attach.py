"""`attach` and `start`, which may attach."""

from __future__ import annotations

from atoll.cli import terminal
from atoll.cli.flags import Command, Flag, Options, UsageError
from atoll.cli.session import CommandFailed, each, engine
from atoll.cli.verbs.create import run_attached
from atoll.cli.wire import Engine


def attach() -> Command:
    flags = (
        Flag("detach-keys", "", "string", "Override the key sequence for detaching a container"),
        Flag("no-stdin", "", "bool", "Do not attach STDIN"),
        Flag("sig-proxy", "", "bool", "Proxy all received signals to the process"),
    )
    return Command(_attach, "[OPTIONS] CONTAINER", "Attach to a running container's standard streams", flags, minimum=1, maximum=1)


def start() -> Command:
    flags = (
        Flag("attach", "a", "bool", "Attach STDOUT/STDERR and forward signals"),
        Flag("detach-keys", "", "string", "Override the key sequence for detaching a container"),
        Flag("interactive", "i", "bool", "Attach container's STDIN"),
    )
    return Command(_start, "[OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers", flags, minimum=1)


def _start(options: Options, names: list[str]) -> int:
    client = engine()
    if not (options["attach"] or options["interactive"]):
        return each(names, lambda name: client.post(f"/containers/{name}/start"))
    if len(names) > 1:
        raise UsageError("you cannot start and attach multiple containers at once")
    found = client.get(f"/containers/{names[0]}/json")
    if found["State"]["Running"]:
        raise CommandFailed(f"container {names[0]} is running already: use attach")
    request = {
        "Tty": found["Config"]["Tty"],
        "AttachStdin": options["interactive"] and found["Config"]["OpenStdin"],
        "AttachStdout": True,
        "AttachStderr": True,
    }
    keys = terminal.detach_sequence(options["detach-keys"])
    return run_attached(client, found["Id"], request, keys, auto_remove=found["HostConfig"]["AutoRemove"])


def _attach(options: Options, names: list[str]) -> int:
    client = engine()
    found = client.get(f"/containers/{names[0]}/json")
    if not found["State"]["Running"]:
        raise CommandFailed("cannot attach to a stopped container, start it first")
    if found["State"]["Paused"]:
        raise CommandFailed("cannot attach to a paused container, unpause it first")
    tty, stdin = found["Config"]["Tty"], found["Config"]["OpenStdin"] and not options["no-stdin"]
    query = {"stream": True, "stdin": stdin, "stdout": True, "stderr": True}
    reply = client.request("POST", f"/containers/{found['Id']}/attach", query, upgrade=True)
    keys = terminal.detach_sequence(options["detach-keys"])
    try:
        sock, first = reply.stream()
        if tty:
            _fit(client, found["Id"])
        with terminal.RawTerminal(tty and stdin):
            terminal.join(sock, first, tty=tty, stdin=stdin, detach_keys=keys)
    except terminal.Detached:
        return 0
    finally:
        reply.close()
    state = client.get(f"/containers/{found['Id']}/json")["State"]
    return 0 if state["Running"] else int(state["ExitCode"])


def _fit(client: Engine, identifier: str) -> None:
    columns, lines = terminal.size()
    if lines:
        client.post(f"/containers/{identifier}/resize", {"h": lines, "w": columns})
