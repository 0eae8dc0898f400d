"""`engine start|stop|restart|status|logs`: the process behind the Engine API."""

from __future__ import annotations

import os
import select

from atoll.cli.flags import Command, Flag, Options, UsageError
from atoll.cli.session import CommandFailed
from atoll.cli.start import start_engine
from atoll.cli.wire import Engine, EngineUnreachable
from atoll.home import ENGINE_SOCKET, home_directory
from atoll.process import pid_of

STOP_TIMEOUT_S = 60  # containers have ten seconds of grace each, all at once
DAEMON, READY = "atoll.node.daemon", "--ready-fd"
TAIL = 1 << 16  # bytes of the log shown unless --all is given
TLS_FILES = {"tlscacert": "ca.pem", "tlscert": "cert.pem", "tlskey": "key.pem"}


def _home() -> str:
    return home_directory(os.environ)


def _pid() -> int | None:
    """The daemon's process, if one lives."""
    return pid_of(os.path.join(_home(), "run", "engine.pid"))


def start() -> Command:
    flags = (
        Flag("host", "H", "list", "Listen here, too: tcp://address:port (with --tls) or unix:///path"),
        Flag("tls", "", "bool", "Let clients with certificates in over TCP"),
        Flag("tlscacert", "", "string", "Let in clients whose certificates are signed by this CA"),
        Flag("tlscert", "", "string", "Certificate of the engine"),
        Flag("tlskey", "", "string", "Key of that certificate"),
        Flag("tlsverify", "", "bool", "As --tls: clients are always verified"),
    )
    return Command(_start, "[OPTIONS]", "Start the engine (engine.toml in its home may say the same for good)", flags, maximum=0)


def _start(options: Options, _: list[str]) -> int:
    pid, words = _pid(), _listening(options)
    if pid is not None and words:
        raise CommandFailed(f"the engine runs, process {pid}: stop it first, with `atoll engine stop --keep-containers`")
    if pid is None:
        start_engine(words)
        pid = _pid()
    also = "".join(f", {host}" for host in options["host"])
    print(f"The engine runs: process {pid}, unix://{os.path.join(_home(), ENGINE_SOCKET)}{also}")
    return 0


def _listening(options: Options) -> list[str]:
    """The daemon's flags. Certificates are looked for where docker has them."""
    hosts = options["host"]
    if not hosts:
        if any(flag in options for flag in ("tls", "tlsverify", *TLS_FILES)):
            raise UsageError("--tls needs an address to listen on: -H tcp://address:port")
        return []
    words = [word for host in hosts for word in ("--host", host)]
    if options["tls"] or options["tlsverify"] or any(options[flag] for flag in TLS_FILES):
        directory = os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
        for flag, name in TLS_FILES.items():
            words += [f"--{flag}", os.path.abspath(options[flag] or os.path.join(directory, name))]
    elif any(host.startswith("tcp:") for host in hosts):
        raise UsageError("the engine listens on TCP only with certificates on both sides: add --tls, --tlscacert, --tlscert and --tlskey")
    return words


def restart() -> Command:
    return Command(
        _restart, "", "Restart the engine and renew its keeper with the code that is installed now; containers run on", maximum=0
    )


def _restart(_: Options, __: list[str]) -> int:
    pid = _pid()
    words: list[str] = []
    if pid is not None:
        words = _words(pid)
        _end(pid, keep_containers=True)
    start_engine(words)
    print(f"The engine runs: process {_pid()}, unix://{os.path.join(_home(), ENGINE_SOCKET)}")
    return 0


def _words(pid: int) -> list[str]:
    """The flags that the daemon was started with, for its successor."""
    with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="surrogateescape") as file:
        words = file.read().split("\0")[:-1]
    words = words[words.index(DAEMON) + 1 :] if DAEMON in words else []
    if READY in words:
        at = words.index(READY)
        del words[at : at + 2]  # that descriptor was for whoever started it
    return words


def stop() -> Command:
    flags = (Flag("keep-containers", "", "bool", "Leave running containers to their keeper"),)
    summary = "Stop all containers and the engine; images, volumes and stopped containers stay on disk"
    return Command(_stop, "[OPTIONS]", summary, flags, maximum=0)


def _stop(options: Options, _: list[str]) -> int:
    pid = _pid()
    if pid is None:
        # A keeper may hold containers of an engine that was killed: only an engine can stop them in good order.
        if options["keep-containers"] or not os.path.exists(os.path.join(_home(), "run", "keeper.sock")):
            print("The engine is not running.")
            return 0
        start_engine()
        pid = _pid()
        if pid is None:
            raise EngineUnreachable("the engine ended again: see `atoll engine logs`")
    _end(pid, keep_containers=bool(options["keep-containers"]))
    print("The engine has stopped.")
    return 0


def _end(pid: int, *, keep_containers: bool) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if keep_containers:
            import signal

            signal.pidfd_send_signal(process, signal.SIGTERM)
        else:
            Engine().post("/atoll/engine/stop")
        ended = select.select([process], [], [], STOP_TIMEOUT_S)[0]
    finally:
        os.close(process)
    if not ended:
        raise CommandFailed(f"the engine, process {pid}, still stops after {STOP_TIMEOUT_S} s: see `atoll engine logs`")


def status() -> Command:
    return Command(_status, "", "Tell whether the engine runs, and where; exit status 3 when it does not", maximum=0)


def _status(_: Options, __: list[str]) -> int:
    pid = _pid()
    if pid is None:
        print(f"The engine is not running (home {_home()}); it starts by itself when a command needs it.")
        return 3  # LSB: "program is not running"
    info = Engine().get("/info")
    print(f"The engine runs: process {pid}, unix://{os.path.join(_home(), ENGINE_SOCKET)}")
    print(f"Containers: {info['Containers']}, running: {info['ContainersRunning']}. Images: {info['Images']}. Home: {_home()}")
    return 0


def logs() -> Command:
    flags = (Flag("all", "a", "bool", "Show all of it, not just the end"),)
    return Command(_logs, "[OPTIONS]", "Show the engine's own log", flags, maximum=0)


def _logs(options: Options, _: list[str]) -> int:
    from atoll.cli.terminal import write_all

    path = os.path.join(_home(), "logs", "engine.log")
    try:
        with open(path, "rb") as file:
            if not options["all"]:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            while data := file.read(1 << 18):
                write_all(1, data)
    except FileNotFoundError:
        raise CommandFailed(f"there is no log at {path}: the engine has not run yet") from None
    return 0
