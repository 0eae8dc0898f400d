"""Dispatch: from the words of the command line to one verb's function, and from any error to a message and an exit status."""

from __future__ import annotations

import os
import sys

from atoll.cli.commands import GROUPS, PASS_THROUGH, TOP
from atoll.cli.flags import USAGE_ERROR, Command, Flag, Options, UsageError, check_arguments, nearest, parse, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

GLOBAL_FLAGS = (
    Flag("config", "", "string", "Location of client config files (default: ~/.docker)"),
    Flag("context", "c", "string", "Name of the context to use to connect to the engine (overrides `context use`)"),
    Flag("debug", "D", "bool", "Show the full error where something goes wrong"),
    Flag("host", "H", "string", "Engine to connect to: unix:///path, tcp://host:port or ssh://user@host"),
    Flag("log-level", "l", "string", "Set the logging level (accepted for docker's sake)"),
    Flag("tls", "", "bool", "Use TLS; implied by --tlsverify"),
    Flag("tlscacert", "", "string", "Trust certs signed only by this CA (default: ~/.docker/ca.pem)"),
    Flag("tlscert", "", "string", "Path to TLS certificate file (default: ~/.docker/cert.pem)"),
    Flag("tlskey", "", "string", "Path to TLS key file (default: ~/.docker/key.pem)"),
    Flag("tlsverify", "", "bool", "Use TLS and verify the remote"),
    Flag("version", "v", "bool", "Print version information and quit"),
    Flag("help", "", "bool", "Print usage"),
)
INTERRUPTED = 130  # 128 + SIGINT
_SWARM = "this engine is not a swarm manager, and swarm mode is not supported: `atoll cluster start` starts a Kubernetes cluster"
NOT_HERE = {
    **dict.fromkeys(("config", "node", "secret", "service", "stack", "swarm"), _SWARM),
    "checkpoint": "checkpoints are not supported",
    "plugin": "plugins are not supported",
    "trust": "content trust (Notary) is not supported: sign by other means and pull by digest",
}


class Context:
    """What the global flags said; verbs read it through `context()`."""

    options = Options({})  # the global flags
    debug = False
    program = "atoll"
    failure = 1  # the exit status of a fault of ours; `run` has 125, since 1 may be the container's own


def main(words: list[str] | None = None) -> int:
    """Run one command line; the exit status is Docker's: 125 for our own faults, the container's status otherwise."""
    words = sys.argv[1:] if words is None else words
    Context.program = name = os.path.basename(sys.argv[0]) if os.path.basename(sys.argv[0]) in ("docker", "minikube") else "atoll"
    if name == "minikube":
        words = ["cluster", *words]
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`atoll logs x | head`): that is its right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:  # the process boundary: a person reads what comes out
        if Context.debug:
            raise
        return _report(error)


def _report(error: Exception) -> int:
    from atoll.cli.wire import EngineError
    from atoll.errors import AtollError

    if isinstance(error, EngineError):
        print(f"{Context.program}: Error response from daemon: {error}", file=sys.stderr)
        return error.exit_status
    known = isinstance(error, AtollError) or type(error).__name__ in ("EngineUnreachable", "CommandFailed", "TemplateError")
    if known or isinstance(error, OSError):
        print(f"{Context.program}: {error}", file=sys.stderr)
    else:
        print(
            f"{Context.program}: unexpected {type(error).__name__}: {error}\nRun the command again with -D to see where.", file=sys.stderr
        )
    return int(getattr(error, "exit_status", Context.failure))


def _dispatch(words: list[str]) -> int:
    top = Command(lambda _options, _words: 0, "[OPTIONS] COMMAND", "", GLOBAL_FLAGS, interspersed=False)
    try:
        options, rest = parse(top, words)
    except UsageError as error:
        print(f"{error}\nSee '{Context.program} --help'.", file=sys.stderr)
        return USAGE_ERROR
    Context.options = options
    if options["config"]:
        os.environ["DOCKER_CONFIG"] = options["config"]
    Context.debug = options["debug"] or bool(os.environ.get("ATOLL_DEBUG"))
    if options["version"]:
        from atoll import __version__

        print(f"Atoll version {__version__}")
        return 0
    if not rest or options["help"] or rest == ["help"]:
        print(overview())
        return 0
    if rest[0] == "help":
        rest = [*rest[1:], "--help"]
    return _group(rest) if rest[0] in GROUPS else _verb(TOP, Context.program, rest)


def _group(words: list[str]) -> int:
    name, rest = words[0], words[1:]
    verbs, summary = GROUPS[name]
    if not rest or rest[0] in ("--help", "-h", "help"):
        print(group_help(name, verbs, summary))
        return 0
    return _verb(verbs, group_path(name), rest)


def _verb(verbs: Mapping[str, tuple[str, str]], prefix: str, words: list[str]) -> int:
    name, rest = words[0], words[1:]
    if name in NOT_HERE and verbs is TOP:
        print(f"{Context.program}: {NOT_HERE[name]}", file=sys.stderr)
        return 1
    if name not in verbs:
        known = [*verbs, *GROUPS] if verbs is TOP else verbs
        print(
            f"{Context.program}: unknown command: {prefix} {name}{nearest(name, known)}\n\nRun '{prefix} --help' for more information",
            file=sys.stderr,
        )
        return 1
    Context.failure = USAGE_ERROR if name == "run" else 1
    command = load(verbs[name][0])
    path = f"{prefix} {name}"
    if name in PASS_THROUGH:
        return command.run(Options({}), rest)
    if "--help" in rest[: rest.index("--")] if "--" in rest else "--help" in rest:
        before = rest[: rest.index("--help")]
        if command.interspersed or all(word.startswith("-") for word in before):
            print(usage(command, path))
            return 0
    try:
        options, arguments = parse(command, rest)
        check_arguments(command, arguments, path)
        return command.run(options, arguments)
    except UsageError as error:
        print(
            f"{Context.program}: {error}\n\nUsage:  {path} {command.arguments}".rstrip() + f"\n\nRun '{path} --help' for more information",
            file=sys.stderr,
        )
        return USAGE_ERROR if name in ("run", "create", "exec") else 1


def group_path(name: str) -> str:
    """The words before a verb of the group NAME: minikube's verbs stand alone."""
    return Context.program if Context.program == "minikube" else f"{Context.program} {name}"


def load(place: str) -> Command:
    """The command at `module:function` of `atoll.cli.verbs`."""
    module, _, function = place.partition(":")
    loaded = __import__(f"atoll.cli.verbs.{module}", fromlist=[function])
    command = getattr(loaded, function)()
    assert isinstance(command, Command)
    return command


def overview() -> str:
    common = ("run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "version", "info")
    own = ("compose", "kubectl", "env", "doctor", "completion")
    rest = sorted(name for name in TOP if name not in common and name not in own and not name.startswith("_"))

    def rows(names: tuple[str, ...] | list[str]) -> list[str]:
        return [f"  {name:<12}{TOP[name][1]}" for name in names]

    return "\n".join(
        [
            "Usage:  atoll [OPTIONS] COMMAND",
            "",
            "Containers and a Kubernetes cluster in one command",
            "",
            "Common Commands:",
            *rows(common),
            "",
            "Management Commands:",
            *(f"  {name:<12}{GROUPS[name][1]}" for name in sorted(GROUPS)),
            "",
            "Tools:",
            *rows(own),
            "",
            "Commands:",
            *rows(rest),
            "",
            "Run 'atoll COMMAND --help' for more information on a command.",
        ]
    )


def group_help(name: str, verbs: Mapping[str, tuple[str, str]], summary: str) -> str:
    return "\n".join(
        [
            f"Usage:  {group_path(name)} COMMAND",
            "",
            summary,
            "",
            "Commands:",
            *(f"  {verb:<12}{verbs[verb][1]}" for verb in sorted(verbs)),
            "",
            f"Run '{group_path(name)} COMMAND --help' for more information on a command.",
        ]
    )
