"""`exec`."""

from __future__ import annotations

import os

from atoll.cli import terminal
from atoll.cli.flags import Command, Flag, Options
from atoll.cli.keyvalues import environment
from atoll.cli.session import CommandFailed, engine
from atoll.cli.wire import Engine, EngineError

FLAGS = (
    Flag("detach", "d", "bool", "Detached mode: run command in the background"),
    Flag("detach-keys", "", "string", "Override the key sequence for detaching a container"),
    Flag("env", "e", "list", "Set environment variables"),
    Flag("env-file", "", "list", "Read in a file of environment variables"),
    Flag("interactive", "i", "bool", "Keep STDIN open even if not attached"),
    Flag("privileged", "", "bool", "Give extended privileges to the command"),
    Flag("tty", "t", "bool", "Allocate a pseudo-TTY"),
    Flag("user", "u", "string", "Username or UID (format: <name|uid>[:<group|gid>])"),
    Flag("workdir", "w", "string", "Working directory inside the container"),
)


def execute() -> Command:
    arguments = "[OPTIONS] CONTAINER COMMAND [ARG...]"
    return Command(_execute, arguments, "Execute a command in a running container", FLAGS, minimum=2, interspersed=False)


def _execute(options: Options, words: list[str]) -> int:
    tty, stdin, detach = options["tty"], options["interactive"], options["detach"]
    if tty and stdin and not detach and not os.isatty(0):
        raise CommandFailed("the input device is not a TTY")
    columns, lines = terminal.size() if tty else (0, 0)
    request = {
        "User": options["user"] or "",
        "Privileged": options["privileged"],
        "Tty": tty,
        "AttachStdin": stdin and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Env": environment(options),
        "WorkingDir": options["workdir"] or "",
        "Cmd": words[1:],
    }
    if lines:
        request["ConsoleSize"] = [lines, columns]
    client = engine()
    identifier = client.post(f"/containers/{words[0]}/exec", body=request)["Id"]
    start = {"Detach": detach, "Tty": tty}
    if lines:
        start["ConsoleSize"] = [lines, columns]
    if detach:
        client.post(f"/exec/{identifier}/start", body=start)
        return 0
    try:
        reply = client.request("POST", f"/exec/{identifier}/start", body=start, upgrade=True)
    except EngineError as error:
        from atoll.cli.verbs.create import start_status

        error.exit_status = start_status(error.message)
        raise
    try:
        sock, first = reply.stream()
        if tty:
            terminal.on_resize(lambda width, height: _resize(client, identifier, width, height))
        with terminal.RawTerminal(tty and stdin):
            terminal.join(sock, first, tty=tty, stdin=stdin, detach_keys=terminal.detach_sequence(options["detach-keys"]))
    except terminal.Detached:
        return 0
    finally:
        reply.close()
    return int(client.get(f"/exec/{identifier}/json")["ExitCode"] or 0)


def _resize(client: Engine, identifier: str, columns: int, lines: int) -> None:
    from contextlib import suppress

    # it has ended in the meantime
    with suppress(EngineError):
        client.post(f"/exec/{identifier}/resize", {"h": lines, "w": columns})
