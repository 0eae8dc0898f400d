"""What most verbs share: the engine of this command line, and the same act for several objects."""

from __future__ import annotations

import os
import sys

from atoll.cli.main import Context
from atoll.cli.wire import Address, Engine, EngineError
from atoll.home import home_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class CommandFailed(Exception):
    """A verb's own failure; `exit_status` is the command's."""

    def __init__(self, message: str, exit_status: int | None = None) -> None:
        super().__init__(message)
        self.exit_status = Context.failure if exit_status is None else exit_status


def engine() -> Engine:
    return Engine(address())


def address() -> Address | None:
    """The engine that the global flags, the environment or a context names; None for this instance's own."""
    options, is_docker = Context.options, Context.program == "docker"
    host = options.get("host")
    if not host and is_docker and not options.get("context"):
        host = os.environ.get("DOCKER_HOST")
    if host:
        return _named(host)
    named = is_docker or options.get("context") or os.environ.get("ATOLL_CONTEXT")
    if not named and not os.path.exists(f"{home_directory(os.environ)}/context"):
        return None  # nothing was ever chosen: the common case, which imports nothing
    from atoll.cli import contexts

    name = contexts.current(Context.program, options.get("context"))
    return None if name == contexts.DEFAULT else contexts.address(name)


def _named(host: str) -> Address:
    """HOST with the certificates of --tls..., else of docker's places."""
    options = Context.options
    verify = options["tlsverify"] if "tlsverify" in options else bool(os.environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not any(flag in options for flag in ("tls", "tlscacert", "tlscert", "tlskey")):
        return Address.parse(host)
    directory = os.environ.get("DOCKER_CERT_PATH") or os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    files = {}
    for flag, field, name in (("tlscacert", "authority", "ca.pem"), ("tlscert", "certificate", "cert.pem"), ("tlskey", "key", "key.pem")):
        path = options.get(flag) or os.path.join(directory, name)
        if options.get(flag) or os.path.exists(path):
            files[field] = path
    return Address.parse(host, files, verify=verify)


def each(names: list[str], act: Callable[[str], object]) -> int:
    """ACT on every name; errors go to standard error one by one, and the exit status tells whether there were any (as docker does)."""
    status = 0
    for name in names:
        try:
            said = act(name)
        except EngineError as error:
            print(f"Error response from daemon: {error}", file=sys.stderr)
            status = 1
        else:
            if said != "":
                print(name if said is None else said)
    return status


def confirmed(warning: str, force: bool) -> bool:
    """Ask on the terminal, as docker does before a prune."""
    if force:
        return True
    try:
        return input(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ").strip().lower() == "y"
    except EOFError:
        return False


def filters(words: list[str]) -> dict[str, list[str]] | None:
    """`--filter key=value` words to the wire's map of lists."""
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise CommandFailed(f'invalid argument "{word}" for "-f, --filter" flag: invalid filter \'{word}\': write key=value', 125)
        found.setdefault(key.strip().lower(), []).append(value.strip())
    return found or None
