"""`completion`: scripts for bash, zsh and fish, and the question they ask (`atoll __complete WORDS...`): what could stand here?

Commands and flags come from the tables that parsing uses; names of containers, images, networks and volumes from the engine, if it runs (a
keystroke must not start it). What follows `kubectl` and `compose` the genuine programs say themselves.
"""

from __future__ import annotations

import os

from atoll.cli.commands import GROUPS, PASS_THROUGH, TOP
from atoll.cli.flags import Command, Options, UsageError
from atoll.cli.main import load
from atoll.cli.wire import Engine, EngineError, EngineUnreachable
from atoll.home import ENGINE_SOCKET, home_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

BASH = """_atoll() {
    local IFS=$'\\n'
    COMPREPLY=($(atoll __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _atoll atoll
"""
ZSH = """#compdef atoll
_atoll() {
    local -a found
    found=("${(@f)$(atoll __complete "${words[@]:1:$((CURRENT-1))}" 2>/dev/null)}")
    if [[ -n $found ]]; then compadd -- $found; else _files; fi
}
compdef _atoll atoll
"""
FISH = """function __atoll_complete
    set -l found (atoll __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)
    if set -q found[1]
        string join \\n -- $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c atoll -f -a '(__atoll_complete)'
"""
FLAG_VALUES = {"link": "CONTAINER", "net": "NETWORK", "network": "NETWORK", "volumes-from": "CONTAINER"}  # whose names a flag takes
SCRIPTS = {"bash": BASH, "fish": FISH, "zsh": ZSH}


def completion() -> Command:
    summary = "Print the completion script of a shell: source <(atoll completion bash)"
    return Command(_completion, "bash|zsh|fish", summary, minimum=1, maximum=1)


def _completion(_: Options, words: list[str]) -> int:
    if words[0] not in SCRIPTS:
        raise UsageError(f"unknown shell '{words[0]}': one of {', '.join(SCRIPTS)}")
    print(SCRIPTS[words[0]], end="")
    return 0


def complete() -> Command:
    return Command(_complete, "[WORD...]", "Print what the last word could become", interspersed=False)


def _complete(_: Options, words: list[str]) -> int:
    *before, prefix = words or [""]
    if before and before[0] in PASS_THROUGH:
        return _of_program(before[0], [*before[1:], prefix])
    found = sorted({word for word in candidates(before, prefix) if word.startswith(prefix)})
    if found:
        print("\n".join(found))
    return 0


def _of_program(name: str, words: list[str]) -> int:
    """The genuine programs know their own words, by cobra's protocol: one a line, an explanation after a tab, a directive last."""
    import subprocess

    from atoll.cli.verbs import tools

    binary, environment = tools.genuine(name)
    asked = subprocess.run(
        [binary, "__complete", *words], env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    found = [line.partition("\t")[0] for line in asked.stdout.splitlines() if not line.startswith(":")]
    print("".join(f"{word}\n" for word in found), end="")
    return 0


def candidates(before: list[str], prefix: str) -> Iterable[str]:
    """Words that may follow BEFORE."""
    if not before:
        return [name for name in (*TOP, *GROUPS) if not name.startswith("_")]
    verbs, rest = (GROUPS[before[0]][0], before[1:]) if before[0] in GROUPS else (TOP, before)
    if not rest:
        return list(verbs)
    if rest[0] not in verbs:
        return []
    command = load(verbs[rest[0]][0])
    if prefix.startswith("-"):
        return [*(f"--{flag.name}" for flag in command.flags), "--help"]
    last = before[-1].removeprefix("--") if before[-1].startswith("--") else ""
    return _names(FLAG_VALUES.get(last) or command.arguments)


def _names(usage: str) -> Iterable[str]:
    """What the usage says stands there: CONTAINER, IMAGE, NETWORK, VOLUME or CONTEXT."""
    if "CONTEXT" in usage:
        from atoll.cli import contexts

        return [contexts.DEFAULT, *(str(meta.get("Name")) for meta in contexts.stored())]
    if not os.path.exists(os.path.join(home_directory(os.environ), ENGINE_SOCKET)):
        return []
    engine = Engine()
    try:
        if "CONTAINER" in usage:
            return [name.lstrip("/") for row in engine.get("/containers/json", {"all": True}) for name in row["Names"]]
        if "IMAGE" in usage:
            return [tag for row in engine.get("/images/json") for tag in row["RepoTags"] or []]
        if "NETWORK" in usage:
            return [row["Name"] for row in engine.get("/networks")]
        if "VOLUME" in usage:
            return [row["Name"] for row in engine.get("/volumes")["Volumes"] or []]
    except (EngineError, EngineUnreachable, OSError):
        pass
    return []
