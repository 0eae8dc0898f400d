"""`run` and `create`."""

from __future__ import annotations

import os
import sys

from atoll.cli import terminal
from atoll.cli.containerbody import body
from atoll.cli.containerflags import CREATE_FLAGS
from atoll.cli.flags import USAGE_ERROR, Command, Flag, Options, UsageError
from atoll.cli.session import CommandFailed, engine
from atoll.cli.wire import Engine, EngineError, Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RUN_FLAGS = (
    *CREATE_FLAGS,
    Flag("detach", "d", "bool", "Run container in background and print container ID"),
    Flag("detach-keys", "", "string", "Override the key sequence for detaching a container"),
    Flag("sig-proxy", "", "bool", "Proxy received signals to the process"),
)
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # the shell's statuses, which docker run passes on


def run() -> Command:
    arguments = "[OPTIONS] IMAGE [COMMAND] [ARG...]"
    return Command(_run, arguments, "Create and run a new container from an image", RUN_FLAGS, minimum=1, interspersed=False)


def create() -> Command:
    return Command(_create, "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", CREATE_FLAGS, minimum=1, interspersed=False)


def _create(options: Options, words: list[str]) -> int:
    identifier = create_container(engine(), options, body(options, words[0], words[1:]))
    print(identifier)
    return 0


def create_container(client: Engine, options: Options, request: dict[str, Any]) -> str:
    """Create, pulling the image when it is absent; returns the container's id, written to --cidfile too."""
    query = {"name": options["name"], "platform": options["platform"]}
    cidfile = options["cidfile"]
    if cidfile and os.path.exists(cidfile):
        raise CommandFailed(f"container ID file found, make sure the other container isn't running or delete {cidfile}", USAGE_ERROR)
    if options["use-api-socket"]:
        from atoll.cli.apisocket import add_socket

        add_socket(client, request)
    policy = options["pull"] or "missing"
    if policy not in ("always", "missing", "never"):
        raise UsageError(f"invalid pull option: '{policy}': must be one of always, missing or never")
    if policy == "always":
        _pull(client, request["Image"], options)
    try:
        answer = client.post("/containers/create", query, request)
    except EngineError as error:
        if error.status != 404 or policy == "never" or not _is_missing(error.message):
            raise _failed(error) from error
        print(f"Unable to find image '{_tagged(request['Image'])}' locally", file=sys.stderr)
        _pull(client, request["Image"], options)
        try:
            answer = client.post("/containers/create", query, request)
        except EngineError as again:
            raise _failed(again) from again
    for warning in answer.get("Warnings") or []:
        print(f"WARNING: {warning}", file=sys.stderr)
    if options["use-api-socket"]:
        from atoll.cli.apisocket import put_logins

        put_logins(client, answer["Id"])
    if cidfile:
        with open(cidfile, "x", encoding="utf-8") as file:
            file.write(answer["Id"])
    return str(answer["Id"])


def _is_missing(message: str) -> bool:
    """Whether it is the image that is not there, or not for the platform asked for."""
    return "No such image" in message or "does not match the specified platform" in message


def _tagged(image: str) -> str:
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def _pull(client: Engine, image: str, options: Options) -> None:
    from atoll.cli.progress import follow
    from atoll.cli.verbs.registry import auth_header

    query = {"fromImage": _tagged(image), "platform": options["platform"]}
    try:
        reply = client.request("POST", "/images/create", query, headers=auth_header(image))
        follow(reply.lines(), quiet=bool(options["quiet"]), file=sys.stderr)
    except EngineError as error:
        raise _failed(error) from error


def _failed(error: EngineError) -> EngineError:
    error.exit_status = USAGE_ERROR
    return error


def _run(options: Options, words: list[str]) -> int:
    if options["detach"] and options["rm"] and options["restart"] not in (None, "no"):
        raise UsageError("conflicting options: cannot specify both --restart and --rm")
    request = body(options, words[0], words[1:])
    if options["interactive"] and options["tty"] and not options["detach"] and not os.isatty(0):
        raise CommandFailed("the input device is not a TTY", 1)
    keys = terminal.detach_sequence(options["detach-keys"])
    client = engine()
    identifier = create_container(client, options, request)
    if options["detach"]:
        _start(client, identifier)
        print(identifier)
        return 0
    return run_attached(client, identifier, request, keys, auto_remove=options["rm"], proxy=options.given.get("sig-proxy", True))


def _start(client: Engine, identifier: str) -> None:
    try:
        client.post(f"/containers/{identifier}/start")
    except EngineError as error:
        error.exit_status = start_status(error.message)
        raise


def start_status(message: str) -> int:
    """Docker run's exit status for a start that failed: 127 and 126 when it is the program's fault, else 125."""
    lowered = message.lower()
    if "executable file not found" in lowered or "no such file or directory" in lowered:
        return NOT_FOUND
    if "permission denied" in lowered or "is a directory" in lowered or "exec format error" in lowered:
        return NOT_EXECUTABLE
    return USAGE_ERROR


def run_attached(client: Engine, identifier: str, request: dict[str, Any], keys: bytes, *, auto_remove: bool, proxy: bool = True) -> int:
    """Attach, start, pump until the end; returns the container's exit status."""
    tty, stdin = bool(request["Tty"]), bool(request["AttachStdin"])
    wait: Reply | None = None
    attached: Reply | None = None
    try:
        if request["AttachStdout"] or request["AttachStderr"] or stdin:
            query = {"stream": True, "stdin": stdin, "stdout": request["AttachStdout"], "stderr": request["AttachStderr"]}
            attached = client.request("POST", f"/containers/{identifier}/attach", query, upgrade=True)
        wait = client.request("POST", f"/containers/{identifier}/wait", {"condition": "removed" if auto_remove else "next-exit"})
        if proxy and not tty:
            _proxy_signals(client, identifier)
        try:
            _start(client, identifier)
        except EngineError:
            if not auto_remove:
                raise
            _discard(client, identifier)
            raise
        if attached is not None:
            sock, first = attached.stream()
            if tty:
                _follow_size(client, identifier)
            with terminal.RawTerminal(tty and stdin):
                terminal.join(sock, first, tty=tty, stdin=stdin, detach_keys=keys)
        answer = wait.json()
    except terminal.Detached:
        return 0
    finally:
        for reply in (attached, wait):
            if reply is not None:
                reply.close()
    if answer.get("Error") and answer["Error"].get("Message"):
        print(answer["Error"]["Message"], file=sys.stderr)
    return int(answer["StatusCode"])


def _discard(client: Engine, identifier: str) -> None:
    """--rm holds for a container that never started, too; the engine may have removed it already."""
    try:
        client.delete(f"/containers/{identifier}", {"v": True, "force": True})
    except EngineError as error:
        if error.status not in (404, 409):
            raise


def _follow_size(client: Engine, identifier: str) -> None:
    from contextlib import suppress

    def resize(columns: int, lines: int) -> None:
        # it has ended in the meantime
        with suppress(EngineError):
            client.post(f"/containers/{identifier}/resize", {"h": lines, "w": columns})

    columns, lines = terminal.size()
    if lines:
        resize(columns, lines)
    terminal.on_resize(resize)


def _proxy_signals(client: Engine, identifier: str) -> None:
    """Signals sent to us are meant for the container; its end is then ours (docker run --sig-proxy)."""
    import _signal as signal  # type: ignore[import-not-found]  # the enums of `signal` cost every run 3 ms

    def forward(number: int, _frame: object) -> None:
        from contextlib import suppress

        # it has ended in the meantime
        with suppress(EngineError):
            client.post(f"/containers/{identifier}/kill", {"signal": str(number)})

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, forward)
